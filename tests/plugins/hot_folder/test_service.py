"""The hot folder runs as a service, within its bounds, on the folder of the configuration."""

from pathlib import Path

import pytest
import trio
from tests.plugins.hot_folder.kit import FakeDaemon, Site
from tests.plugins.kit import Context, registered

from distconv_plugins.hot_folder import plugin
from distconv_plugins.hot_folder import tree as hot_tree
from distconv_plugins.hot_folder.plugin import HotFolder
from distconv_spool.disk import OsDisk
from distconvd.hookspecs import Service
from distconvd.model import Job

# ---------------------------------------------------------------------------------------- bounds


@pytest.mark.slow
@pytest.mark.usefixtures("no_real_fsync")
async def test_of_ten_thousand_videos_no_more_than_a_batch_are_submitted_at_a_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_hand, most = 0, 0
    submit = site.daemon.submit

    async def counted(fields: bytes, *, idempotency_key: str) -> Job:
        nonlocal in_hand, most
        in_hand += 1
        most = max(most, in_hand)
        try:
            return await submit(fields, idempotency_key=idempotency_key)
        finally:
            in_hand -= 1

    monkeypatch.setattr(site.daemon, "submit", counted)
    for folder in range(10):
        (site.watch / "h264" / str(folder)).mkdir(parents=True)
        for number in range(1000):
            (site.watch / "h264" / str(folder) / f"{number}.mov").write_text(f"{folder} {number}")
    await site.live()
    await site.live()
    assert len(site.daemon.all) == 10_000
    assert 1 <= most <= plugin.BATCH


async def test_more_videos_than_the_bound_are_reported(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hot_tree, "FILES_MAX", 3)
    for number in range(5):
        site.video(f"h264/{number}.mov", str(number))
    await site.live()
    assert len(site.daemon.all) == 3
    assert "more than 3 videos" in caplog.text


# -------------------------------------------------------------------------------------- the service


async def test_the_running_service_submits_videos_and_writes_reports(site: Site) -> None:
    site.video("h264/a.mov")
    submitted = trio.Event()
    logged = trio.Event()

    class NotifyingDisk(OsDisk):
        def sync_dir(self, folder: Path) -> None:
            super().sync_dir(folder)
            if site.daemon.all:
                trio.from_thread.run_sync(submitted.set)
            if folder == site.watch / "done/h264":
                trio.from_thread.run_sync(logged.set)

    service = HotFolder(
        site.watch, site.records, site.daemon, settle_s=0, poll_s=0.01, disk=NotifyingDisk()
    )
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            await submitted.wait()
            service.on_event(site.daemon.end("1753_1"))
            await logged.wait()
            nursery.cancel_scope.cancel()
    assert site.report("done/h264/a.mov")["status"] == "completed"


# -------------------------------------------------------------------------------------- the plugin


def made_of(root: Path, settings: dict[str, object]) -> Service | None:
    factory = registered(plugin.distconvd_register_services, "hot-folder")
    return factory(Context(root, "hot-folder", settings), FakeDaemon())


def test_a_daemon_without_a_watched_folder_gets_no_service(tmp_path: Path) -> None:
    assert made_of(tmp_path, {}) is None


async def test_the_plugin_serves_the_folder_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "watch").mkdir()
    made = made_of(tmp_path, {"watch": str(tmp_path / "watch")})
    assert isinstance(made, HotFolder)
    async with made.opened():
        assert (tmp_path / "state.json.hot-folder").is_dir()
