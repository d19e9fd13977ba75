"""A video is submitted once, whatever restarts, moves, changes or competes."""

import os
from pathlib import Path

import pytest
from tests.plugins.hot_folder.kit import FakeDaemon, Site

from distconv_plugins.hot_folder.plugin import HotFolder
from distconv_spool.disk import OsDisk
from distconvd.errors import ConfigError
from distconvd.model import JobStatus


async def test_a_restart_submits_nothing_again(site: Site) -> None:
    site.video("h264/a.mov")
    for _ in range(3):
        await site.live()
    await site.live(ends=True)
    await site.live()
    assert len(site.daemon.all) == 1


async def test_a_remount_that_changes_device_and_inode_submits_nothing_again(site: Site) -> None:
    place = site.video("h264/a.mov", "same bytes")
    stamp = place.stat().st_mtime_ns
    await site.live()
    place.rename(site.watch / "keep")  # so that the inode is not given out again
    site.video("h264/a.mov", "same bytes")
    os.utime(place, ns=(stamp, stamp))
    await site.live()
    assert len(site.daemon.all) == 1


@pytest.mark.parametrize("is_ended", [False, True])
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_video_that_is_renamed_or_moved_is_not_submitted_again(
    site: Site, is_ended: bool, restarted: bool
) -> None:
    place = site.video("h264/a.mov")
    await site.live(ends=is_ended)
    for target in ("h264/b.mov", "h264/sub/deep/c.mov", "h264/a.mov"):
        (site.watch / target).parent.mkdir(parents=True, exist_ok=True)
        place = place.rename(site.watch / target)
        await site.live()
        if not restarted:
            await site.live()
    await site.live(ends=True)
    await site.live()
    assert len(site.daemon.all) == 1


async def test_a_video_that_is_renamed_between_two_scans_is_submitted_once(site: Site) -> None:
    place = site.video("h264/a.mov")
    service = site.service()
    async with service.opened():
        await site.scan(service, times=1)
        place.rename(site.watch / "h264/b.mov")
        await site.scan(service, times=3)
    assert site.daemon.sources == ["h264/b.mov"]


class RenamingDisk(OsDisk):
    """Renames a video in the middle of a scan."""

    def __init__(self, place: Path, target: Path) -> None:
        self._place, self._target = place, target

    def lstat(self, path: Path) -> os.stat_result:
        status = super().lstat(path)
        if path == self._place and not self._target.exists():
            self._place.rename(self._target)
        return status


async def test_a_video_that_is_renamed_during_a_scan_is_submitted_once(
    site: Site,
) -> None:
    place = site.video("h264/a.mov")
    for _ in range(2):
        await site.live(RenamingDisk(place, site.watch / "h264/b.mov"))
        await site.live(ends=True)
    assert site.daemon.sources == ["h264/b.mov"]


async def test_a_folder_that_is_renamed_with_its_settings_is_not_submitted_again(
    site: Site,
) -> None:
    site.settings("h264/show", 'output = "../../done/x"')
    site.video("h264/show/a.mov")
    await site.live(ends=True)
    (site.watch / "h264/show").rename(site.watch / "h264/renamed")
    await site.live(ends=True)
    assert len(site.daemon.all) == 1


async def test_settings_that_are_added_or_changed_submit_nothing_again(site: Site) -> None:
    site.video("h264/sub/a.mov")
    await site.live(ends=True)
    site.settings("h264/sub", "priority = 1")
    await site.live()
    site.settings("h264/sub", "priority = 2")
    await site.live()
    assert len(site.daemon.all) == 1


async def test_a_changed_video_is_a_new_job(site: Site) -> None:
    site.video("h264/a.mov", "one")
    await site.live(ends=True)
    site.video("h264/a.mov", "two, longer")
    await site.live(ends=True)
    await site.live()
    assert [job.job_size for job in site.daemon.all] == [3e-6, 11e-6]
    assert site.report("done/h264/a.mov")["job_id"] == "1753_2"


async def test_a_video_moved_to_another_codecs_folder_is_encoded_with_that_codec_too(
    site: Site,
) -> None:
    place = site.video("h264/a.mov")
    (site.watch / "av1").mkdir()
    await site.live(ends=True)
    place = place.rename(site.watch / "av1/a.mov")
    await site.live(ends=True)
    place.rename(site.watch / "h264/a.mov")
    await site.live(ends=True)
    assert [job.target_codec for job in site.daemon.all] == ["h264", "av1"]


async def test_a_video_moved_under_other_settings_is_encoded_with_those_too(site: Site) -> None:
    site.settings("h264/small", "[options]\nmax_height = 360\n")
    place = site.video("h264/a.mov")
    await site.live(ends=True)
    place.rename(site.watch / "h264/small/a.mov")
    await site.live(ends=True)
    assert [job.options.max_height for job in site.daemon.all] == [None, 360]


async def test_a_copy_is_another_video(site: Site) -> None:
    place = site.video("h264/a.mov")
    stamp = place.stat().st_mtime_ns
    os.utime(site.video("h264/b.mov"), ns=(stamp, stamp))
    for _ in range(3):
        await site.live()
    assert sorted(site.daemon.sources) == ["h264/a.mov", "h264/b.mov"]


async def test_a_video_that_is_moved_under_its_running_job_is_ordered_again_once_that_failed(
    site: Site,
) -> None:
    place = site.video("h264/a.mov")
    service = site.service()
    async with service.opened():
        await site.scan(service)
        place.rename(site.watch / "h264/b.mov")
        await site.scan(service)
        assert site.daemon.sources == ["h264/a.mov"]
        service.on_event(site.daemon.end("1753_1", JobStatus.FAILED_PERMANENTLY))
        await service.publish()
        await site.scan(service)
    await site.live(ends=True)
    await site.live()
    assert site.daemon.sources == ["h264/a.mov", "h264/b.mov"]


async def test_a_failed_video_that_is_renamed_afterwards_is_not_tried_again(site: Site) -> None:
    place = site.video("h264/a.mov")
    await site.live(ends=True, status=JobStatus.FAILED_PERMANENTLY)
    place.rename(site.watch / "h264/b.mov")
    await site.live()
    assert len(site.daemon.all) == 1


async def test_videos_are_not_submitted_again_after_the_watched_folder_was_missing_for_a_time(
    site: Site,
) -> None:
    site.video("h264/a.mov")
    await site.live(ends=True)
    site.watch.rename(site.watch.with_name("away"))
    with pytest.raises(ConfigError, match="there is no folder"):
        await site.live()
    site.watch.with_name("away").rename(site.watch)
    await site.live()
    assert len(site.daemon.all) == 1


async def test_orders_without_a_report_are_submitted_again_to_a_daemon_that_lost_its_state(
    site: Site,
) -> None:
    site.video("h264/reported.mov", "a")
    await site.live(ends=True)
    site.video("h264/open.mov", "bb")
    await site.live()
    site.daemon = FakeDaemon()
    await site.live(ends=True)
    assert site.daemon.sources == ["h264/open.mov"]
    assert site.report("done/h264/open.mov")["job_id"] == "1753_1"


async def test_a_job_that_ended_while_no_service_ran_is_reported_at_the_next_start(
    site: Site,
) -> None:
    site.video("h264/a.mov")
    await site.live()
    site.daemon.end("1753_1")
    await site.live()
    assert site.report("done/h264/a.mov")["status"] == "completed"


async def test_a_second_daemon_on_the_same_tree_is_refused(site: Site, tmp_path: Path) -> None:
    other = HotFolder(site.watch, tmp_path / "other.hot-folder", FakeDaemon())
    async with site.service().opened():
        with pytest.raises(ConfigError, match="Another daemon serves this hot folder"):
            async with other.opened():
                pass
    async with other.opened():
        pass


async def test_a_damaged_record_keeps_its_own_video_waiting_and_no_other(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.video("h264/a.mov", "a")
    await site.live()
    [record] = site.records.glob("?" * 32 + ".json")
    record.write_text("{")
    site.video("h264/b.mov", "bb")
    await site.live()
    assert site.daemon.sources == ["h264/a.mov", "h264/b.mov"]
    assert "is damaged" in caplog.text
