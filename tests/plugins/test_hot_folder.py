"""A video in a hot folder becomes a job, exactly one, whatever stops, moves, changes or competes."""

import errno
import json
import os
import re
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
import pytest
import trio

from distconv_plugins import _hot_tree as hot_tree
from distconv_plugins import hot_folder
from distconv_plugins._hot_names import is_video, report_name
from distconv_plugins._hot_orders import PROBLEM_NAME, Desk
from distconv_plugins._hot_settings import make_room
from distconv_plugins.hot_folder import HotFolder, HotFolderSettings
from distconv_spool.disk import OsDisk
from distconv_spool.testing import Fault, FaultyDisk, PowerCut
from distconvd.dispatch import Event
from distconvd.errors import BadRequest, ConfigError, NotFound, Unavailable, Unprocessable
from distconvd.hookspecs import S, Service, ServiceFactory
from distconvd.model import FailureClass, Job, JobResult, JobStatus, Submission


class FakeDaemon:
    """Durable and honest: each key is one job, for ever; it outlives every hot folder here."""

    def __init__(self) -> None:
        self.by_key: dict[str, tuple[bytes, str]] = {}
        self.jobs: dict[str, Job] = {}
        self.down: Exception | None = None
        self.refused_codecs: set[str] = set()

    async def submit(self, fields: bytes, *, idempotency_key: str) -> Job:
        await trio.lowlevel.checkpoint()
        if self.down is not None:
            raise self.down
        if idempotency_key not in self.by_key:
            submission = msgspec.json.decode(fields, type=Submission)
            if submission.target_codec in self.refused_codecs:
                raise BadRequest("There is no such codec.")
            job_id = f"1753_{len(self.jobs) + 1}"
            told = {name: getattr(submission, name) for name in Submission.__struct_fields__}
            self.jobs[job_id] = Job(job_id, **told)
            self.by_key[idempotency_key] = (fields, job_id)
        known, job_id = self.by_key[idempotency_key]
        if known != fields:
            raise Unprocessable("This Idempotency-Key was used before for a different request.")
        return self.jobs[job_id]

    async def job(self, job_id: str) -> Job:
        await trio.lowlevel.checkpoint()
        if job_id not in self.jobs:
            raise NotFound("Job not found")
        return self.jobs[job_id]

    def end(self, job_id: str, status: JobStatus = JobStatus.COMPLETED) -> Event:
        job = self.jobs[job_id]
        if status is JobStatus.COMPLETED:
            assert job.output
            ended = {"output_url": f"{job.output.url}out.mp4", "result": JobResult(size_bytes=7)}
        else:
            ended = {"error_message": "no such file", "error_class": FailureClass.INPUT}
        job = msgspec.structs.replace(job, status=status, assigned_engine="e1", **ended)
        self.jobs[job_id] = job
        record = msgspec.json.encode(job)
        if status is JobStatus.COMPLETED:
            return Event("job.completed", 0, job_id, record=record)
        return Event("job.failed", 0, job_id, record=record)

    @property
    def sources(self) -> list[str]:
        """The names of all sources, in the order of their jobs."""
        return [unquote(urlsplit(job.source_url).path).split("/watch/")[1] for job in self.all]

    @property
    def all(self) -> list[Job]:
        return list(self.jobs.values())


class Site:
    """A watched folder, and the service on it that a test starts and stops."""

    def __init__(self, root: Path) -> None:
        self.watch = root / "watch"
        self.records = root / "state.json.hot-folder"
        self.daemon = FakeDaemon()
        self.watch.mkdir(parents=True)
        self.now_s = 0.0

    def video(self, path: str, content: str = "video") -> Path:
        place = self.watch / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
        return place

    def settings(self, folder: str, text: str) -> Path:
        place = self.watch / folder / "distconv.toml"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    def service(self, disk: OsDisk | None = None) -> HotFolder:
        return HotFolder(self.watch, self.records, self.daemon, disk=disk)

    async def look(self, service: HotFolder, times: int = 2) -> int:
        """Look so often that everything settles."""
        made = 0
        for _ in range(times):
            self.now_s += 10.0
            made += await service.poll(self.now_s)
        return made

    async def live(self, disk: OsDisk | None = None, *, ends: bool = False) -> None:
        """One life of the daemon: start, take all in, end the jobs, report, stop."""
        service = self.service(disk)
        async with service.opened():
            await service.catch_up()
            await self.look(service)
            if ends:
                for job in self.daemon.all:
                    if job.status is JobStatus.PENDING:
                        service.on_event(self.daemon.end(job.job_id))
            await service.publish()

    def report(self, path: str) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.watch / f"{path}.report.json").read_bytes())
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


# ------------------------------------------------------------------------------------ the usual way


async def test_a_video_that_has_settled_becomes_a_job_for_its_folders_codec(site: Site) -> None:
    place = site.video("h265/shows/a b.mov", "x" * 1000)
    await site.live()
    [job] = site.daemon.all
    assert job.source_url == place.as_uri()
    assert (job.target_codec, job.job_size) == ("h265", 0.001)
    assert job.output
    assert job.output.url == (site.watch / "done/h265/shows").as_uri() + "/"


async def test_a_video_that_is_still_written_waits(site: Site) -> None:
    service = site.service()
    async with service.opened():
        for size in range(1, 6):
            site.video("av1/a.mp4", "x" * size)
            assert await site.look(service, times=1) == 0
        assert await site.look(service, times=2) == 1


async def test_an_empty_video_does_not_count_yet(site: Site) -> None:
    site.video("av1/a.mp4", "")
    await site.live()
    assert site.daemon.all == []


async def test_the_report_lies_beside_the_result_and_says_how_it_went(site: Site) -> None:
    site.video("h264/sub/a.mov")
    await site.live(ends=True)
    report = site.report("done/h264/sub/a.mov")
    assert report["job_id"] == "1753_1"
    assert report["status"] == "completed"
    assert (report["source_size_bytes"], report["output_size_bytes"]) == (5, 7)
    assert str(report["output_url"]).endswith("/done/h264/sub/out.mp4")
    assert report["error"] is None


async def test_a_failure_is_reported_too(site: Site) -> None:
    site.video("h264/a.mov")
    service = site.service()
    async with service.opened():
        await site.look(service)
        service.on_event(site.daemon.end("1753_1", JobStatus.FAILED_PERMANENTLY))
        await service.publish()
    report = site.report("done/h264/a.mov")
    assert (report["status"], report["error"]) == ("failed_permanently", "no such file")
    assert report["error_class"] == "input"


async def test_a_job_that_the_daemon_refuses_is_reported_and_not_tried_again(site: Site) -> None:
    site.video("h264/a.mov")
    site.daemon.down = BadRequest("Not this one.")
    await site.live()
    report = site.report("done/h264/a.mov")
    assert (report["status"], report["error"]) == ("rejected", "Not this one.")
    site.daemon.down = None
    await site.live()
    assert site.daemon.all == []


async def test_when_the_daemon_says_later_a_video_waits(site: Site) -> None:
    site.video("h264/a.mov")
    site.daemon.down = Unavailable("draining")
    service = site.service()
    async with service.opened():
        assert await site.look(service, times=4) == 0
        site.daemon.down = None
        assert await site.look(service, times=1) == 1


async def test_the_oldest_video_is_the_oldest_job(site: Site) -> None:
    for age, name in enumerate(["c", "a", "b"]):
        os.utime(site.video(f"h264/{name}.mov"), (age, age))
    await site.live()
    assert site.daemon.sources == ["h264/c.mov", "h264/a.mov", "h264/b.mov"]


async def test_somebody_elses_job_with_our_label_is_ignored(site: Site) -> None:
    site.video("h264/a.mov")
    service = site.service()
    async with service.opened():
        await site.look(service)
        [job] = site.daemon.all
        theirs = msgspec.structs.replace(job, job_id="9_9", status=JobStatus.COMPLETED)
        other = msgspec.structs.replace(theirs, labels={"hot-folder": "x" * 32 + ".0"})
        for ended in (theirs, other):
            service.on_event(Event("job.completed", 0, "9_9", record=msgspec.json.encode(ended)))
        await service.publish()
    assert not (site.watch / "done").exists()


# ------------------------------------------------------------------------------------- what counts


@pytest.mark.parametrize(
    "name", ["a.mp4", "A.MOV", "with space.mkv", "new\nline.ts", "漢字🎬.webm", "a.b.c.mxf"]
)
def test_a_name_of_a_video_counts(name: str) -> None:
    assert is_video(name)


@pytest.mark.parametrize(
    "name",
    [
        *("notes.txt", "mp4", ".hidden.mp4", "._a.mov", "~$a.mov", "a.mp4.part", "a.part.mp4"),
        *("a.tmp.mov", "a.mp4~", "a~.mp4", ".a.mov.Ab3dE9", "a.mov.report.json", "a.crdownload"),
        *("distconv.toml", ".1_0-1.distconv-part"),
    ],
)
def test_hidden_temporary_and_other_names_do_not_count(name: str) -> None:
    assert not is_video(name)


@pytest.mark.parametrize("name", ["a.mov", "n" * 255, "漢" * 85, "é" * 127 + "x"])
def test_the_name_of_a_report_fits_the_file_system(name: str) -> None:
    for tag in ("", "abcdef01"):
        cut = report_name(name, tag)
        assert len(os.fsencode(cut)) <= 255
        assert cut.endswith(".report.json")
        cut.encode()  # no half character


async def test_links_devices_and_folders_with_a_videos_name_are_left_alone(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "secret.mov").write_text("secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.mov").write_text("b")
    site.video("h264/good.mov")
    (site.watch / "h264/link.mov").symlink_to(tmp_path / "secret.mov")
    (site.watch / "h264/folder").symlink_to(tmp_path / "elsewhere")
    (site.watch / "av1").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(site.watch / "h264/pipe.mov")
    (site.watch / "h264/dir.mov").mkdir()
    await site.live()
    assert site.daemon.sources == ["h264/good.mov"]


async def test_a_video_that_a_link_replaces_before_it_is_read_is_not_followed(
    site: Site, tmp_path: Path
) -> None:
    place = site.video("h264/a.mov")
    secret = tmp_path / "secret.mov"
    secret.write_text("video")
    os.utime(secret, ns=(0, place.stat().st_mtime_ns))
    service = site.service()
    desk_order = Desk.order

    async with service.opened():
        await site.look(service, times=1)
        look = await service._do(Desk.look, 100.0)
        place.unlink()
        place.symlink_to(secret)
        tickets, troubles = await service._do(desk_order, look.videos)
        assert tickets == []
        assert len(troubles) == 1
        place.parent.rename(site.watch / "moved")
        (site.watch / "h264").symlink_to(tmp_path)
        assert (await service._do(desk_order, look.videos))[0] == []


async def test_any_name_of_a_file_is_taken_and_shown_harmlessly(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    names = ["new\nline.mov", "\x1b[31m.mov", os.fsdecode(b"\xff\xfe.mov"), "n" * 251 + ".mov"]
    for name in names:
        site.video(f"h264/{name}", name.encode(errors="replace").decode())
    await site.live(ends=True)
    urls = [urlsplit(job.source_url).path for job in site.daemon.all]
    assert all(url.isascii() and url.isprintable() and " " not in url for url in urls)
    assert len(list((site.watch / "done/h264").iterdir())) == len(urls) == 4
    assert all(line.isascii() and line.isprintable() for line in caplog.messages)


async def test_videos_outside_of_a_codecs_folder_are_left_alone(site: Site) -> None:
    site.video("a.mov")
    site.video(".trash/a.mov", "b")
    site.video("@eaDir/a.mov", "c")
    await site.live()
    assert site.daemon.all == []


async def test_a_folder_whose_name_is_no_codec_is_told_of(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.video("my videos/a.mov")
    await site.live()
    assert site.daemon.all == []
    assert "the folder my videos is not served" in caplog.text


# ---------------------------------------------------------------------------------------- settings


async def test_the_nearest_settings_hold_whole(site: Site, tmp_path: Path) -> None:
    done = tmp_path / "results"
    site.settings(
        "h265",
        f'output = "{done}"\npriority = 2\nmax_retries = 1\nrequires = ["gpu"]\n'
        'labels = { show = "bunny" }\n[options]\ncrf = 26\nmax_height = 720\n',
    )
    site.settings("h265/plain", "")
    site.video("h265/one/a.mov", "a")
    site.video("h265/plain/b.mov", "bb")
    await site.live(ends=True)
    one, plain = sorted(site.daemon.all, key=lambda job: job.source_url)
    assert (one.priority, one.max_retries, one.requires) == (2, 1, ["gpu"])
    assert (one.options.crf, one.options.max_height) == (26, 720)
    assert one.labels["show"] == "bunny"
    assert one.output
    assert one.output.url == (done / "one").as_uri() + "/"
    assert (done / "one" / "a.mov.report.json").is_file()
    assert (plain.priority, plain.options.crf) == (0, None)
    assert plain.output
    assert plain.output.url == (site.watch / "done/h265/plain").as_uri() + "/"


@pytest.mark.parametrize(
    "text, part",
    [
        ("?", "not valid TOML"),
        ("crf = 3", "crf"),
        ("[options]\ncrff = 3", "crff"),
        ("[options]\ncrf = 99", "options.crf"),
        ("priority = 9", "priority"),
        ("max_retries = -1", "max_retries"),
        ('[options]\ncontainer = "webm"', "webm cannot hold h264"),
        ('output = ""', "name a folder"),
        ('output = "~/x"', "name a folder"),
        ('output = "."', "one of their own"),
        ('output = ".."', "one of their own"),
        ('output = "/"', "one of their own"),
        ('output = "../av1"', "codec's own folder"),
        ('output = "file:x"', "three slashes"),
        ('output = "http://h/a b"', "output.url"),
        ("output = 3", "output"),
        ("priority = 1" + "0" * 4400, "digits"),
        ("priority = 0x" + "f" * 20_000, "priority"),
        ("priority = " + "[" * 30_000, "recursion"),
        ('output = "file://["', "not a URL"),
        ('output = "file://\u2100.com/"', "not a URL"),
    ],
)
async def test_wrong_settings_are_told_beside_them_and_the_folder_waits_until_they_are_mended(
    site: Site, text: str, part: str
) -> None:
    site.settings("h264", text)
    site.video("h264/a.mov", "a")
    site.video("av1/b.mov", "b")
    problem = site.watch / "h264" / PROBLEM_NAME
    await site.live()
    assert site.daemon.sources == ["av1/b.mov"]
    assert part in json.loads(problem.read_bytes())["detail"]
    site.settings("h264", 'output = "done"')
    await site.live()
    assert site.daemon.sources == ["av1/b.mov", "h264/a.mov"]
    assert not problem.exists()


async def test_names_that_are_no_utf8_harm_no_other_video(site: Site) -> None:
    """Of a codec's folder, of one whose settings are wrong, and of a very long video."""
    odd = os.fsdecode(b"h264\xff")
    site.settings("", "priority = 1")
    site.video(f"{odd}/a.mov", "a")
    wrong = os.fsdecode(b"h264/\xff")
    site.settings(wrong, 'output = "."')
    site.video(f"{wrong}/b.mov", "b")
    site.video("h264/" + os.fsdecode(b"\x80" * 251) + ".mov", "c")
    site.video("h264/d.mov", "d")
    site.daemon.refused_codecs = {"h264\ufffd"}
    await site.live(ends=True)
    assert [job.job_size for job in site.daemon.all] == [1e-6] * 2
    assert site.report("done/h264/d.mov")["status"] == "completed"
    assert site.report(f"done/{odd}/a.mov")["status"] == "rejected"
    assert (site.watch / wrong / PROBLEM_NAME).exists()


async def test_a_report_of_another_program_that_cannot_be_read_is_left_alone(site: Site) -> None:
    theirs = site.watch / "done/h264/a.mov.report.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("[" * 60_000)
    site.video("h264/a.mov")
    await site.live(ends=True)
    assert len([*theirs.parent.glob("a.mov.*.report.json")]) == 1
    assert theirs.read_text().startswith("[[")


async def test_a_video_on_which_the_daemon_itself_fails_is_reported_by_the_plugins_name(
    site: Site,
) -> None:
    site.video("h264/a.mov")
    site.daemon.down = ZeroDivisionError("a bug")
    await site.live()
    report = site.report("done/h264/a.mov")
    assert report["status"] == "rejected"
    assert "'hot-folder'" in str(report["error"])


async def test_settings_that_are_still_written_hold_the_folder_back(site: Site) -> None:
    site.video("h264/a.mov")
    service = site.service()
    async with service.opened():
        await site.look(service, times=1)
        for length in range(1, 4):
            site.settings("h264", "#" * length)
            assert await site.look(service, times=1) == 0
        assert await site.look(service, times=2) == 1


async def test_settings_that_are_a_link_are_not_followed(site: Site, tmp_path: Path) -> None:
    (tmp_path / "secret.toml").write_text("priority = 2")
    site.video("h264/a.mov")
    (site.watch / "h264/distconv.toml").symlink_to(tmp_path / "secret.toml")
    await site.live()
    assert site.daemon.all == []
    assert "symbolic link" in (site.watch / "h264" / PROBLEM_NAME).read_text()


async def test_results_can_be_put_to_a_server_and_the_report_stays_with_the_video(
    site: Site,
) -> None:
    site.settings("h264", 'output = "https://media.example/in"')
    site.video("h264/a b/c.mov")
    await site.live(ends=True)
    [job] = site.daemon.all
    assert job.output
    assert job.output.url == "https://media.example/in/a%20b/"
    assert site.report("h264/a b/c.mov")["status"] == "completed"


# ------------------------------------------------------------------- results are never taken for videos


async def test_results_inside_the_tree_are_never_taken_for_videos(site: Site) -> None:
    site.settings("h264", 'output = "ready"')
    site.video("h264/a.mov", "a")
    site.video("av1/b.mov", "b")
    await site.live(ends=True)
    for result in ("h264/ready/a.mp4", "done/av1/b.mp4", "done/h264/c.mp4"):
        site.video(result, f"result {result}")
    for _ in range(3):
        await site.live(ends=True)
    assert sorted(site.daemon.sources) == ["av1/b.mov", "h264/a.mov"]


async def test_results_of_earlier_settings_are_never_taken_for_videos(site: Site) -> None:
    toml = site.settings("h264", 'output = "ready"')
    site.video("h264/a.mov", "a")
    await site.live(ends=True)
    site.video("h264/ready/a.mp4", "result")
    site.settings("h264", 'output = "ready-2"')
    await site.live()
    toml.unlink()
    await site.live()
    assert site.daemon.sources == ["h264/a.mov"]


async def test_results_reached_through_a_link_are_never_taken_for_videos(
    site: Site, tmp_path: Path
) -> None:
    (site.watch / "h264" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to(site.watch / "h264" / "real")
    site.settings("h264", f'output = "{tmp_path}/link"')
    site.video("h264/real/a.mov", "result")
    await site.live()
    assert site.daemon.all == []


async def test_two_videos_of_one_name_into_one_folder_get_a_report_each(
    site: Site, tmp_path: Path
) -> None:
    for folder in ("h264/x", "h264/y"):
        site.settings(folder, f'output = "{tmp_path}/out"')
        site.video(f"{folder}/a.mov", folder)
    await site.live(ends=True)
    await site.live(ends=True)
    reports = [json.loads(p.read_bytes()) for p in (tmp_path / "out").glob("*.report.json")]
    assert sorted(report["job_id"] for report in reports) == ["1753_1", "1753_2"]


# --------------------------------------------------------------- never twice: restarts, moves, changes


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


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_video_that_is_renamed_or_moved_is_not_submitted_again(
    site: Site, ended: bool, restarted: bool
) -> None:
    place = site.video("h264/a.mov")
    await site.live(ends=ended)
    for target in ("h264/b.mov", "h264/sub/deep/c.mov", "h264/a.mov"):
        (site.watch / target).parent.mkdir(parents=True, exist_ok=True)
        place = place.rename(site.watch / target)
        await site.live()
        if not restarted:
            await site.live()
    await site.live(ends=True)
    await site.live()
    assert len(site.daemon.all) == 1


async def test_a_video_that_is_renamed_between_two_looks_is_submitted_once(site: Site) -> None:
    place = site.video("h264/a.mov")
    service = site.service()
    async with service.opened():
        await site.look(service, times=1)
        place.rename(site.watch / "h264/b.mov")
        await site.look(service, times=3)
    assert site.daemon.sources == ["h264/b.mov"]


class RenamingDisk(OsDisk):
    """Somebody renames a video in the middle of a walk."""

    def __init__(self, place: Path, target: Path) -> None:
        self._place, self._target = place, target

    def lstat(self, path: Path) -> os.stat_result:
        status = super().lstat(path)
        if path == self._place and not self._target.exists():
            self._place.rename(self._target)
        return status


async def test_a_video_that_is_renamed_in_the_middle_of_a_look_is_submitted_once(
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


async def test_a_video_moved_to_another_codec_is_wanted_in_that_one_too(site: Site) -> None:
    place = site.video("h264/a.mov")
    (site.watch / "av1").mkdir()
    await site.live(ends=True)
    place = place.rename(site.watch / "av1/a.mov")
    await site.live(ends=True)
    place.rename(site.watch / "h264/a.mov")
    await site.live(ends=True)
    assert [job.target_codec for job in site.daemon.all] == ["h264", "av1"]


async def test_a_video_moved_under_other_settings_is_wanted_by_those_too(site: Site) -> None:
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


async def test_a_video_that_is_moved_under_its_running_job_is_ordered_anew_once_that_failed(
    site: Site,
) -> None:
    place = site.video("h264/a.mov")
    service = site.service()
    async with service.opened():
        await site.look(service)
        place.rename(site.watch / "h264/b.mov")
        await site.look(service)
        assert site.daemon.sources == ["h264/a.mov"]
        service.on_event(site.daemon.end("1753_1", JobStatus.FAILED_PERMANENTLY))
        await service.publish()
        await site.look(service)
    await site.live(ends=True)
    await site.live()
    assert site.daemon.sources == ["h264/a.mov", "h264/b.mov"]


async def test_a_failed_video_that_is_renamed_afterwards_is_not_tried_again(site: Site) -> None:
    place = site.video("h264/a.mov")
    service = site.service()
    async with service.opened():
        await site.look(service)
        service.on_event(site.daemon.end("1753_1", JobStatus.FAILED_PERMANENTLY))
        await service.publish()
    place.rename(site.watch / "h264/b.mov")
    await site.live()
    assert len(site.daemon.all) == 1


async def test_a_tree_that_is_away_for_a_time_is_forgotten_by_nobody(site: Site) -> None:
    site.video("h264/a.mov")
    await site.live(ends=True)
    site.watch.rename(site.watch.with_name("away"))
    with pytest.raises(ConfigError, match="there is no folder"):
        await site.live()
    site.watch.with_name("away").rename(site.watch)
    await site.live()
    assert len(site.daemon.all) == 1


async def test_a_daemon_that_lost_its_state_is_given_what_was_not_reported(site: Site) -> None:
    site.video("h264/reported.mov", "a")
    await site.live(ends=True)
    site.video("h264/open.mov", "bb")
    await site.live()
    site.daemon = FakeDaemon()
    await site.live(ends=True)
    assert site.daemon.sources == ["h264/open.mov"]
    assert site.report("done/h264/open.mov")["job_id"] == "1753_1"


async def test_an_end_that_was_missed_while_nobody_ran_is_reported_at_the_next_start(
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


# ------------------------------------------------------------------------------------------ crashes


@pytest.fixture
def no_real_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is durable is in `FaultyDisk`'s books: hundreds of power cuts need not wear the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def fill(site: Site) -> None:
    """Three videos, and settings of both kinds."""
    site.settings("h264", 'output = "ready"')
    site.settings("vp9", "?")
    site.video("h264/a.mov", "a")
    site.video("h264/sub/b.mov", "bb")
    site.video("av1/c.mov", "ccc")
    site.video("vp9/d.mov", "dddd")


def audit(site: Site) -> None:
    """Nothing is lost, nothing is doubled, every end is told, and of no half file."""
    assert sorted(site.daemon.sources) == ["av1/c.mov", "h264/a.mov", "h264/sub/b.mov"]
    places = ["done/av1/c.mov", "h264/ready/a.mov", "h264/ready/sub/b.mov"]
    assert {site.report(place)["job_id"] for place in places} == set(site.daemon.jobs)
    assert {site.report(place)["status"] for place in places} == {"completed"}
    assert json.loads((site.watch / "vp9" / PROBLEM_NAME).read_bytes())["detail"]


async def until_it_stops(site: Site, disk: OsDisk) -> None:
    try:
        await site.live(disk, ends=True)
    except PowerCut:
        pass
    except BaseExceptionGroup as group:
        if group.split(PowerCut)[1] is not None:
            raise


@pytest.mark.slow
@pytest.mark.parametrize("lose", [False, True], ids=["all kept", "unsynced lost"])
@pytest.mark.parametrize("fault", [Fault.STOP_BEFORE, Fault.STOP_TORN, Fault.STOP_AFTER])
@pytest.mark.usefixtures("no_real_fsync")
async def test_a_stop_at_any_operation_neither_loses_nor_doubles_a_video(
    tmp_path: Path, fault: Fault, lose: bool
) -> None:
    for at in range(1, 400):
        site, disk = Site(tmp_path / f"s{at}"), FaultyDisk(at, fault)
        fill(site)
        await until_it_stops(site, disk)
        if lose:
            disk.lose_unsynced()
        await site.live(ends=True)
        await site.live()
        audit(site)
        if not disk.struck:
            assert at > 60
            return
    pytest.fail("no life ran through")


@pytest.mark.slow
@pytest.mark.usefixtures("no_real_fsync")
async def test_a_stop_and_then_a_rename_of_all_videos_neither_loses_nor_doubles_one(
    tmp_path: Path,
) -> None:
    for at in range(1, 400):
        site, disk = Site(tmp_path / f"s{at}"), FaultyDisk(at, Fault.STOP_BEFORE)
        fill(site)
        await until_it_stops(site, disk)
        disk.lose_unsynced()
        for path in ("h264/a", "h264/sub/b", "av1/c"):
            (site.watch / f"{path}.mov").rename(site.watch / f"{path}2.mov")
        # Whoever is asked to do a job whose source is gone fails it.
        for _ in range(3):
            await live_and_fail_what_is_gone(site)
        done = [job for job in site.daemon.all if job.status is JobStatus.COMPLETED]
        names = sorted(Path(job.source_url).stem.rstrip("2") for job in done)
        assert names == ["a", "b", "c"], at
        if not disk.struck:
            return
    pytest.fail("no life ran through")


async def live_and_fail_what_is_gone(site: Site) -> None:
    service = site.service()
    async with service.opened():
        await service.catch_up()
        await site.look(service)
        for job in site.daemon.all:
            if job.status is JobStatus.PENDING:
                is_there = Path(unquote(urlsplit(job.source_url).path)).exists()
                status = JobStatus.COMPLETED if is_there else JobStatus.FAILED_PERMANENTLY
                service.on_event(site.daemon.end(job.job_id, status))
        await service.publish()


async def insist(step: Callable[[], Awaitable[object]]) -> None:
    """Do a step again when the disk refused it, as the service's loops do."""
    try:
        await step()
    except OSError:
        await step()


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault, error",
    [(Fault.FAIL, errno.ENOSPC), (Fault.FAIL, errno.EROFS), (Fault.LOST_REPLY, errno.EIO)],
)
@pytest.mark.usefixtures("no_real_fsync")
async def test_an_error_at_any_operation_is_got_over_without_a_restart(
    tmp_path: Path, fault: Fault, error: int
) -> None:
    # From 2 on: the first operation is in the start, which a refusing disk is allowed to stop.
    for at in range(2, 400):
        site, disk = Site(tmp_path / f"s{at}"), FaultyDisk(at, fault, error)
        fill(site)
        service = site.service(disk)
        async with service.opened():
            await insist(service.catch_up)
            for _ in range(4):
                await insist(lambda s=service, t=site: t.look(s, times=1))  # type: ignore[misc]
            for job in site.daemon.all:
                service.on_event(site.daemon.end(job.job_id))
            await insist(service.publish)
        audit(site)
        if not disk.struck:
            assert at > 60
            return
    pytest.fail("no life ran through")


# ---------------------------------------------------------------------------------------- the many


@pytest.mark.slow
@pytest.mark.usefixtures("no_real_fsync")
async def test_ten_thousand_videos_are_in_hand_only_so_many_at_a_time(
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
    assert 1 <= most <= hot_folder.BATCH


async def test_more_videos_than_the_bound_are_told_of(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hot_tree, "FILES_MAX", 3)
    for number in range(5):
        site.video(f"h264/{number}.mov", str(number))
    await site.live()
    assert len(site.daemon.all) == 3
    assert "more than 3 videos" in caplog.text


# -------------------------------------------------------------------------------------- the service


async def test_the_service_takes_videos_and_reports_by_itself(site: Site) -> None:
    site.video("h264/a.mov")
    submitted = trio.Event()
    told = trio.Event()

    class TellingDisk(OsDisk):
        def sync_dir(self, folder: Path) -> None:
            super().sync_dir(folder)
            if site.daemon.all:
                trio.from_thread.run_sync(submitted.set)
            if folder == site.watch / "done/h264":
                trio.from_thread.run_sync(told.set)

    service = HotFolder(
        site.watch, site.records, site.daemon, settle_s=0, poll_s=0.01, disk=TellingDisk()
    )
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            await submitted.wait()
            service.on_event(site.daemon.end("1753_1"))
            await told.wait()
            nursery.cancel_scope.cancel()
    assert site.report("done/h264/a.mov")["status"] == "completed"


# ------------------------------------------------------------------------------------- the document


def test_the_page_on_hot_folders_shows_settings_that_are_so() -> None:
    text = (Path(__file__).parents[2] / "docs" / "spool.md").read_text()
    shown = re.findall(r"```toml\n(.*?)```", text[text.index("## Hot folders") :], re.DOTALL)
    table = tomllib.loads(shown[0])["plugin"]["hot-folder"]
    assert msgspec.convert(table, HotFolderSettings) == HotFolderSettings(watch="/srv/watch")
    assert make_room(Path("/srv/watch"), "h265", shown[1].encode()).base == "/srv/done"
    assert f"{hot_tree.FILES_MAX:,} videos" in text


# -------------------------------------------------------------------------------------- the plugin


class Context:
    """What the daemon would tell the plugin."""

    api_key = None
    key_file = None
    spool_dir = None

    def __init__(self, root: Path, settings: dict[str, object]) -> None:
        self.state_file = root / "state.json"
        self.media_dir = root / "media"
        self._settings = settings

    def settings(self, name: str, kind: type[S]) -> S:
        assert name == "hot-folder"
        return msgspec.convert(self._settings, kind)

    def policy(self, name: str) -> object:
        raise NotImplementedError


class Offers:
    def __init__(self) -> None:
        self.made: dict[str, ServiceFactory] = {}

    def add(self, name: str, offered: ServiceFactory) -> None:
        self.made[name] = offered


def made_of(root: Path, settings: dict[str, object]) -> Service | None:
    offers = Offers()
    hot_folder.distconvd_register_services(offers)
    return offers.made["hot-folder"](Context(root, settings), FakeDaemon())  # type: ignore[arg-type]


def test_a_daemon_without_a_watched_folder_gets_no_service(tmp_path: Path) -> None:
    assert made_of(tmp_path, {}) is None


async def test_the_plugin_serves_the_folder_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "watch").mkdir()
    made = made_of(tmp_path, {"watch": str(tmp_path / "watch")})
    assert isinstance(made, HotFolder)
    async with made.opened():
        assert (tmp_path / "state.json.hot-folder").is_dir()
