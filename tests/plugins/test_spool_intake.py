"""Drops become jobs, each exactly one, whatever stops, fails, vanishes or competes."""

import errno
import json
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from distconv_plugins import _intake_drops as intake_drops
from distconv_plugins import spool_intake
from distconv_plugins.spool_intake import SpoolIntake
from distconv_spool import Layout, State, create, look, submit
from distconv_spool.disk import OsDisk
from distconv_spool.testing import Fault, FaultyDisk, PowerCut
from distconvd.disk import REAL_DISK
from distconvd.dispatch import Event
from distconvd.errors import (
    BadRequest,
    CommitFailed,
    ConfigError,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from distconvd.hookspecs import S, ServiceFactory
from distconvd.model import Job, JobStatus
from distconvd.policy import Policy

GOOD = {"source_url": "file:///a.mov", "target_codec": "av1"}


class FakeDaemon:
    """Durable and honest: each key is one job, for ever; it outlives every intake here."""

    def __init__(self) -> None:
        self.by_key: dict[str, str] = {}
        self.jobs: dict[str, Job] = {}
        self.calls: list[str] = []
        self.down: Exception | None = None
        self.before_reply: Callable[[], None] | None = None

    async def submit(self, fields: bytes, *, idempotency_key: str) -> Job:
        self.calls.append(idempotency_key)
        if self.down is not None:
            raise self.down
        job = self.admit(json.loads(fields), idempotency_key)
        await trio.lowlevel.checkpoint()
        return job

    def admit(self, fields: dict[str, str], key: str) -> Job:
        if "source_url" not in fields:
            raise BadRequest("'source_url' is missing.", field="source_url")
        if key not in self.by_key:
            job_id = f"1753_{len(self.jobs) + 1}"
            self.by_key[key] = job_id
            self.jobs[job_id] = Job(job_id, fields["source_url"], "av1")
        if self.before_reply is not None:
            self.before_reply()
        return self.jobs[self.by_key[key]]

    async def job(self, job_id: str) -> Job:
        if job_id not in self.jobs:
            raise NotFound("Job not found")
        return self.jobs[job_id]

    def end(self, job_id: str, status: JobStatus = JobStatus.COMPLETED) -> Job:
        self.jobs[job_id] = msgspec.structs.replace(self.jobs[job_id], status=status)
        return self.jobs[job_id]


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create(tmp_path / "spool")


def intake_of(
    layout: Layout, daemon: FakeDaemon, owner: str = "me", disk: OsDisk | None = None
) -> SpoolIntake:
    return SpoolIntake(layout.root, daemon, owner=owner, disk=disk)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.name != ".lock")


def drop_names(folder: Path) -> list[str]:
    return sorted(name.split("~", 1)[1] for name in names(folder))


async def take_in(
    layout: Layout, daemon: FakeDaemon, owner: str = "me", disk: OsDisk | None = None
) -> None:
    """Start an intake, let every file settle, and stop it."""
    intake = intake_of(layout, daemon, owner, disk)
    async with intake.hold.opened():
        for now_s in (0.0, 10.0, 20.0):
            await intake.drops.poll(now_s)


# ------------------------------------------------------------------------------------ the usual way


async def test_a_drop_becomes_a_job_and_lies_in_accepted_under_its_id(
    layout: Layout, daemon: FakeDaemon
) -> None:
    drop = submit(layout.root, GOOD)
    await take_in(layout, daemon)
    assert names(layout.accepted) == [f"1753_1~{drop.name}"]
    assert daemon.calls == [f"spool-{drop.name.removesuffix('.json')}"]
    assert look(layout.root, drop).job_id == "1753_1"


async def test_a_toml_file_written_in_place_is_taken_once_it_has_settled(
    layout: Layout, daemon: FakeDaemon
) -> None:
    (layout.incoming / "a.toml").write_text('source_url = "file:///a"')
    intake = intake_of(layout, daemon)
    async with intake.hold.opened():
        assert await intake.drops.poll(0.0) == 0
        (layout.incoming / "a.toml").write_text('source_url = "file:///longer"')
        assert await intake.drops.poll(3.0) == 0
        assert await intake.drops.poll(6.0) == 1
    assert daemon.jobs["1753_1"].source_url == "file:///longer"


async def test_a_bad_drop_is_rejected_with_the_problem_beside_it(
    layout: Layout, daemon: FakeDaemon
) -> None:
    (layout.incoming / "a.json").write_text("{}")
    await take_in(layout, daemon)
    file, problem = names(layout.rejected)
    assert problem == f"{file}.problem.json"
    assert json.loads((layout.rejected / problem).read_bytes()) == {
        "type": "urn:distconv:problem:bad-request",
        "title": "Bad Request",
        "status": 400,
        "detail": "'source_url' is missing.",
        "field": "source_url",
        "drop": "a.json",
    }


async def test_a_drop_that_is_no_object_never_reaches_the_daemon(
    layout: Layout, daemon: FakeDaemon
) -> None:
    (layout.incoming / "a.json").write_text("{")
    (layout.incoming / "b.json").write_bytes(b'{"a": "' + b"x" * 300_000 + b'"}')
    await take_in(layout, daemon)
    assert drop_names(layout.rejected)[::2] == ["a.json", "b.json"]
    assert daemon.calls == []


@pytest.mark.parametrize(
    "name",
    [
        "with space.json",
        "new\nline.json",
        ".hidden.json",
        "-rf.json",
        "漢字🎬é.toml",
        "n" * 250 + ".json",
        "漢" * 83 + "n.json",
        os.fsdecode(b"not-utf8-\xff\xfe.json"),
        "~tilde~.json",
        "\x1b[31mred.json",
        "A.JSON",
    ],
)
@pytest.mark.parametrize("good", [True, False])
async def test_any_name_is_taken_and_shown_harmlessly(
    layout: Layout, daemon: FakeDaemon, name: str, good: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    toml, text = 'source_url = "file:///a"', json.dumps(GOOD)
    (layout.incoming / name).write_text((toml if name.endswith("toml") else text) if good else "?")
    await take_in(layout, daemon)
    assert names(layout.incoming) == names(layout.claimed / "me") == []
    assert len(names(layout.accepted)) == (1 if good else 0)
    assert len(names(layout.rejected)) == (0 if good else 2)
    assert "drop" in caplog.text
    assert all(line.isascii() and line.isprintable() for line in caplog.messages)


async def test_other_files_are_left_alone(layout: Layout, daemon: FakeDaemon) -> None:
    others = ["a.json.part", "._a.json", "notes.txt"]
    for name in [*others, "empty.json"]:
        (layout.incoming / name).touch()
    await take_in(layout, daemon)
    assert names(layout.incoming) == sorted([*others, "empty.json"])


async def test_the_daemons_own_folders_may_hold_strange_files(
    layout: Layout, daemon: FakeDaemon
) -> None:
    for folder in (layout.accepted, layout.claimed, layout.results):
        (folder / "README").touch()
    await take_in(layout, daemon)
    intake = intake_of(layout, daemon)
    async with intake.hold.opened():
        await intake.results.catch_up()


# ------------------------------------------------------------------------------------------ results


async def test_an_ended_job_gets_its_last_record_in_results(
    layout: Layout, daemon: FakeDaemon
) -> None:
    drop = submit(layout.root, GOOD)
    intake = intake_of(layout, daemon)
    async with intake.hold.opened():
        await intake.drops.poll(0.0)
        intake.results.job_ended(daemon.end("1753_1"))
        await intake.results.publish()
    outcome = look(layout.root, drop)
    assert outcome.state is State.FINISHED
    assert outcome.record is not None
    assert outcome.record["status"] == "completed"


async def test_a_job_that_came_another_way_gets_none(layout: Layout, daemon: FakeDaemon) -> None:
    intake = intake_of(layout, daemon)
    async with intake.hold.opened():
        intake.results.job_ended(Job("9_9", "file:///a", "av1", status=JobStatus.COMPLETED))
        await intake.results.publish()
    assert names(layout.results) == []


async def test_a_job_that_ends_before_its_submission_is_answered_gets_its_result(
    layout: Layout, daemon: FakeDaemon
) -> None:
    submit(layout.root, GOOD)
    intake = intake_of(layout, daemon)
    async with intake.hold.opened():
        daemon.before_reply = lambda: intake.results.job_ended(daemon.end("1753_1"))
        await intake.drops.poll(0.0)
        await intake.results.publish()
    assert names(layout.results) == ["1753_1.json"]


async def test_a_retried_job_gets_its_second_end_over_the_first(
    layout: Layout, daemon: FakeDaemon
) -> None:
    drop = submit(layout.root, GOOD)
    intake = intake_of(layout, daemon)
    async with intake.hold.opened():
        await intake.drops.poll(0.0)
        for status in (JobStatus.FAILED_PERMANENTLY, JobStatus.COMPLETED):
            intake.results.job_ended(daemon.end("1753_1", status))
            await intake.results.publish()
    record = look(layout.root, drop).record
    assert record is not None
    assert record["status"] == "completed"


async def test_a_drop_whose_job_has_ended_and_been_archived_meanwhile_gets_its_result(
    layout: Layout, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def not_in_the_store(job_id: str) -> Job:
        raise NotFound("Job not found")

    drop = submit(layout.root, GOOD, key="a" * 32)
    ended = Job("1753_1", "file:///a.mov", "av1", status=JobStatus.COMPLETED)
    daemon.by_key, daemon.jobs = {"spool-" + "a" * 32: "1753_1"}, {"1753_1": ended}
    monkeypatch.setattr(daemon, "job", not_in_the_store)
    intake = intake_of(layout, daemon)
    async with intake.hold.opened():
        await intake.drops.poll(0.0)
        await intake.results.publish()
    assert look(layout.root, drop).state is State.FINISHED


class WritingDisk(OsDisk):
    """Lets something happen in the middle of each write."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self.meanwhile = meanwhile

    def write_new(self, path: Path, data: bytes) -> None:
        super().write_new(path, data)
        trio.from_thread.run_sync(self.meanwhile)


async def test_an_end_that_comes_while_another_is_written_is_written_too(
    layout: Layout, daemon: FakeDaemon
) -> None:
    ends = [JobStatus.COMPLETED]

    def end_again() -> None:
        if ends:
            intake.results.job_ended(daemon.end("1753_1", ends.pop()))

    drop = submit(layout.root, GOOD)
    intake = intake_of(layout, daemon, disk=WritingDisk(end_again))
    async with intake.hold.opened():
        await intake.drops.poll(0.0)
        intake.results.job_ended(daemon.end("1753_1", JobStatus.FAILED_PERMANENTLY))
        await intake.results.publish()
    record = look(layout.root, drop).record
    assert record is not None
    assert record["status"] == "completed"


async def test_an_end_that_nobody_wrote_down_is_caught_up_at_the_next_start(
    layout: Layout, daemon: FakeDaemon
) -> None:
    submit(layout.root, GOOD)
    await take_in(layout, daemon)
    daemon.end("1753_1")
    (layout.accepted / "8_8~other-daemons.json").touch()
    intake = intake_of(layout, daemon)
    async with intake.hold.opened():
        await intake.results.catch_up()
        await intake.results.publish()
    assert names(layout.results) == ["1753_1.json"]


async def test_a_result_that_the_disk_refuses_is_kept_and_written_later(
    layout: Layout, daemon: FakeDaemon
) -> None:
    submit(layout.root, GOOD)
    disk = FaultyDisk(1, Fault.FAIL, errno.ENOSPC, only=frozenset({"write_new"}))
    intake = intake_of(layout, daemon, disk=disk)
    async with intake.hold.opened():
        await intake.drops.poll(0.0)
        intake.results.job_ended(daemon.end("1753_1"))
        with pytest.raises(OSError, match="No space"):
            await intake.results.publish()
        await intake.results.publish()
    assert names(layout.results) == ["1753_1.json"]


# ------------------------------------------------------------------------------------- hostile files


def _link(path: Path) -> None:
    (path.parent.parent / "secret").write_text(json.dumps(GOOD))
    path.symlink_to(path.parent.parent / "secret")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    "make, what",
    [
        (_link, "a symbolic link"),
        (lambda path: path.symlink_to(path), "a symbolic link"),
        (lambda path: path.symlink_to("/dev/zero"), "a symbolic link"),
        (Path.mkdir, "a folder"),
        (os.mkfifo, "a named pipe"),
        (_socket, "a socket"),
    ],
    ids=["link", "loop", "link to device", "folder", "pipe", "socket"],
)
async def test_what_is_no_plain_file_is_rejected_as_itself(
    layout: Layout, daemon: FakeDaemon, make: Callable[[Path], None], what: str
) -> None:
    make(layout.incoming / "a.json")
    await take_in(layout, daemon)
    assert daemon.calls == []
    file, problem = names(layout.rejected)
    assert what in json.loads((layout.rejected / problem).read_bytes())["detail"]
    assert os.path.lexists(layout.rejected / file)


async def test_a_folder_under_a_keyed_name_does_not_block_its_key(
    layout: Layout, daemon: FakeDaemon
) -> None:
    for _ in range(2):
        (layout.incoming / f"{'a' * 32}.json").mkdir()
        await take_in(layout, daemon)
    assert len(names(layout.rejected)) == 4


class UnreadableDisk(OsDisk):
    """Files that belong to somebody else."""

    def read(self, path: Path, limit_bytes: int) -> tuple[bytes, os.stat_result]:
        raise PermissionError(errno.EACCES, "Permission denied")


async def test_a_drop_that_the_daemon_may_not_read_is_rejected_with_what_to_do(
    layout: Layout, daemon: FakeDaemon
) -> None:
    submit(layout.root, GOOD)
    await take_in(layout, daemon, disk=UnreadableDisk())
    problem = json.loads((layout.rejected / names(layout.rejected)[1]).read_bytes())
    assert problem["status"] == 403
    assert "chmod g+r" in problem["detail"]


class StuckDisk(OsDisk):
    """One drop cannot be moved."""

    def rename(self, source: Path, target: Path) -> None:
        if source.name == "stuck.json":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        super().rename(source, target)


async def test_a_drop_that_cannot_be_moved_holds_up_no_other_and_is_told_once(
    layout: Layout, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("stuck.json", "b.json"):
        (layout.incoming / name).write_text(json.dumps(GOOD))
    await take_in(layout, daemon, disk=StuckDisk())
    assert names(layout.incoming) == ["stuck.json"]
    assert drop_names(layout.accepted) == ["b.json"]
    assert len([line for line in caplog.messages if "stuck" in line]) == 1


class FullDisk(OsDisk):
    """It takes no new file, and no new name in accepted/."""

    def write_new(self, path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def rename(self, source: Path, target: Path) -> None:
        if target.parent.name == "accepted":
            raise OSError(errno.ENOSPC, "No space left on device")
        super().rename(source, target)


async def test_on_a_full_disk_drops_are_tried_at_the_pace_of_the_polls_and_told_once(
    layout: Layout, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (layout.incoming / f"{1:032x}.json").write_text("?")
    (layout.incoming / f"{2:032x}.json").write_text(json.dumps(GOOD))
    intake = intake_of(layout, daemon, disk=FullDisk())
    async with intake.hold.opened():
        # Nothing was brought to an end, so the service waits before it looks again.
        assert [await intake.drops.poll(float(n)) for n in range(5)] == [0] * 5
    assert len([line for line in caplog.messages if "No space left" in line]) == 2
    assert not [line for line in caplog.messages if "is rejected" in line or "is job" in line]
    await take_in(layout, daemon)
    assert (len(daemon.jobs), names(layout.claimed / "me")) == (1, [])


class VanishingDisk(OsDisk):
    """Somebody removes each file just before one kind of operation."""

    def __init__(self, before: str) -> None:
        self.before = before

    def lstat(self, path: Path) -> os.stat_result:
        self._vanish("lstat", path)
        return super().lstat(path)

    def read(self, path: Path, limit_bytes: int) -> tuple[bytes, os.stat_result]:
        self._vanish("read", path)
        return super().read(path, limit_bytes)

    def rename(self, source: Path, target: Path) -> None:
        self._vanish(target.parent.name, source)
        super().rename(source, target)

    def _vanish(self, step: str, path: Path) -> None:
        if step == self.before:
            path.unlink()


@pytest.mark.parametrize("before", ["lstat", "read", "me", "accepted"])
async def test_a_file_that_is_removed_under_us_harms_nothing(
    layout: Layout, daemon: FakeDaemon, before: str
) -> None:
    submit(layout.root, GOOD)
    await take_in(layout, daemon, disk=VanishingDisk(before))
    assert names(layout.incoming) == names(layout.claimed / "me") == names(layout.rejected) == []
    assert len(daemon.jobs) == (1 if before == "accepted" else 0)


class StaleDisk(OsDisk):
    """An NFS client that believes for ever what it first saw of a path, until the file is opened."""

    def __init__(self) -> None:
        self.seen: dict[Path, os.stat_result] = {}

    def lstat(self, path: Path) -> os.stat_result:
        return self.seen.setdefault(path, super().lstat(path))


async def test_a_file_that_still_changed_when_it_was_claimed_settles_anew(
    layout: Layout, daemon: FakeDaemon
) -> None:
    intake = intake_of(layout, daemon, disk=StaleDisk())
    with (layout.incoming / "a.json").open("w") as writer:
        writer.write('{"source_url": ')
        writer.flush()
        async with intake.hold.opened():
            await intake.drops.poll(0.0)
            writer.write('"file:///whole"}')
            writer.flush()
            await intake.drops.poll(10.0)
            assert drop_names(layout.claimed / "me") == ["a.json"]
            assert daemon.calls == []
            await intake.drops.poll(20.0)
            await intake.drops.poll(30.0)
    assert [job.source_url for job in daemon.jobs.values()] == ["file:///whole"]


# ------------------------------------------------------------------------------------ when not now


async def test_a_drop_on_which_the_daemon_itself_fails_is_rejected_and_the_next_is_taken(
    layout: Layout, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    (layout.incoming / "bad.json").write_text('{"source_url": "file:///a", "at": "x"}')
    os.utime(layout.incoming / "bad.json", (1.0, 1.0))
    (layout.incoming / "good.json").write_text(json.dumps(GOOD))

    def fail_once() -> None:
        daemon.before_reply = None
        raise ZeroDivisionError("a bug")

    daemon.before_reply = fail_once
    await take_in(layout, daemon)
    assert drop_names(layout.rejected) == ["bad.json", "bad.json.problem.json"]
    assert drop_names(layout.accepted) == ["good.json"]
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    "error", [Unavailable("draining"), CommitFailed("disk full"), TooManyRequests("slow down")]
)
async def test_when_the_daemon_says_later_a_drop_waits_and_no_more_are_taken(
    layout: Layout, daemon: FakeDaemon, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_drops, "CLAIMS_MAX", 2)
    for _ in range(5):
        submit(layout.root, GOOD)
    intake = intake_of(layout, daemon)
    async with intake.hold.opened():
        daemon.down = error
        for now_s in (0.0, 10.0, 20.0):
            assert await intake.drops.poll(now_s) == 0
        assert len(names(layout.claimed / "me")) == 2
        daemon.down = None
        await intake.drops.poll(30.0)
    assert len(names(layout.accepted)) == len(daemon.jobs) == 5


async def test_no_more_drops_are_in_hand_at_once_than_the_bound(
    layout: Layout, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_drops, "CLAIMS_MAX", 4)
    monkeypatch.setattr("distconv_spool.owner.SCAN_MAX", 10)
    for number in range(25):
        (layout.incoming / f"{number:032x}.json").write_text(json.dumps(GOOD))
    in_hand: list[int] = []
    daemon.before_reply = lambda: in_hand.append(len(names(layout.claimed / "me")))
    intake = intake_of(layout, daemon)
    async with intake.hold.opened():
        assert [await intake.drops.poll(float(n)) for n in range(4)] == [10, 10, 5, 0]
    assert max(in_hand) == 4
    assert len(daemon.jobs) == len(names(layout.accepted)) == 25


async def test_the_oldest_drop_is_submitted_first(layout: Layout, daemon: FakeDaemon) -> None:
    for age, name in enumerate(["c", "a", "b"]):
        (layout.incoming / f"{name}.json").write_text(json.dumps({"source_url": f"file:///{name}"}))
        os.utime(layout.incoming / f"{name}.json", (age, age))
    await take_in(layout, daemon)
    urls = [daemon.jobs[f"1753_{n}"].source_url for n in (1, 2, 3)]
    assert urls == ["file:///c", "file:///a", "file:///b"]


# ------------------------------------------------------------------------- two daemons on one spool


async def test_two_daemons_on_one_spool_never_both_submit_a_drop(
    layout: Layout, daemon: FakeDaemon
) -> None:
    other = FakeDaemon()
    for number in range(200):
        (layout.incoming / f"{number:032x}.json").write_text(json.dumps(GOOD))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_in, layout, daemon, "one")
        nursery.start_soon(take_in, layout, other, "two")
    assert not daemon.by_key.keys() & other.by_key.keys()
    assert len(daemon.by_key) + len(other.by_key) == 200
    assert len(set(drop_names(layout.accepted))) == len(drop_names(layout.accepted)) == 200


async def test_a_second_daemon_under_the_same_owners_name_is_refused(
    layout: Layout, daemon: FakeDaemon
) -> None:
    async with intake_of(layout, daemon).hold.opened():
        with pytest.raises(ConfigError, match="owner 'me'"):
            async with intake_of(layout, daemon).hold.opened():
                pass
    await take_in(layout, daemon)


async def test_nobody_takes_over_another_owners_claims(layout: Layout, daemon: FakeDaemon) -> None:
    submit(layout.root, GOOD)
    daemon.down = Unavailable("draining")
    await take_in(layout, daemon, "one")
    daemon.down = None
    await take_in(layout, daemon, "two")
    assert daemon.jobs == {}
    await take_in(layout, daemon, "one")
    assert len(daemon.jobs) == 1


# ------------------------------------------------------------------------------------------ crashes


@pytest.fixture
def no_real_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is durable is in `FaultyDisk`'s books: hundreds of power cuts need not wear the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def fill(layout: Layout) -> None:
    """Four drops: keyed, in place, and two that are refused, early and late."""
    submit(layout.root, GOOD, key="a" * 32)
    (layout.incoming / "b.toml").write_text('source_url = "file:///b"')
    (layout.incoming / "c.json").write_text("{}")
    (layout.incoming / "d.json").write_text("?")


async def whole_life(layout: Layout, daemon: FakeDaemon, disk: OsDisk) -> None:
    """All steps that there are: a start, every drop taken in, every job ended, every result."""
    intake = intake_of(layout, daemon, disk=disk)
    async with intake.hold.opened():
        await intake.results.catch_up()
        for now_s in (0.0, 10.0):
            await intake.drops.poll(now_s)
        for job_id in list(daemon.jobs):
            intake.results.job_ended(daemon.end(job_id))
        await intake.results.publish()


async def until_it_stops(layout: Layout, daemon: FakeDaemon, disk: OsDisk) -> None:
    try:
        await whole_life(layout, daemon, disk)
    except PowerCut:
        pass


def audit(layout: Layout, daemon: FakeDaemon) -> None:
    """Nothing is lost, nothing is doubled, nothing is left lying about."""
    assert sorted(job.source_url for job in daemon.jobs.values()) == ["file:///a.mov", "file:///b"]
    assert names(layout.incoming) == names(layout.claimed / "me") == []
    assert drop_names(layout.accepted) == [f"{'a' * 32}.json", "b.toml"]
    assert sorted(name.split("~")[0] for name in names(layout.accepted)) == sorted(daemon.jobs)
    rejected = [name for name in names(layout.rejected) if not name.endswith(".problem.json")]
    assert sorted(name.split("~")[1] for name in rejected) == ["c.json", "d.json"]
    for name in rejected:
        problem = json.loads((layout.rejected / f"{name}.problem.json").read_bytes())
        assert problem["status"] == 400
    assert names(layout.results) == sorted(f"{job_id}.json" for job_id in daemon.jobs)
    for job_id in daemon.jobs:
        record = json.loads((layout.results / f"{job_id}.json").read_bytes())
        assert record["status"] == "completed"


@pytest.mark.slow
@pytest.mark.parametrize("lose", [False, True], ids=["all kept", "unsynced lost"])
@pytest.mark.parametrize("fault", [Fault.STOP_BEFORE, Fault.STOP_TORN, Fault.STOP_AFTER])
@pytest.mark.usefixtures("no_real_fsync")
async def test_a_stop_at_any_operation_neither_loses_nor_doubles_a_drop(
    tmp_path: Path, fault: Fault, lose: bool
) -> None:
    for at in range(1, 200):
        layout, daemon, disk = create(tmp_path / f"s{at}"), FakeDaemon(), FaultyDisk(at, fault)
        fill(layout)
        await until_it_stops(layout, daemon, disk)
        if lose:
            disk.lose_unsynced()
        await whole_life(layout, daemon, OsDisk())
        audit(layout, daemon)
        if not disk.struck:
            assert at > 40
            return
    pytest.fail("no life ran through")


@pytest.mark.slow
@pytest.mark.usefixtures("no_real_fsync")
async def test_a_power_cut_in_the_recovery_from_a_kill_is_no_worse(tmp_path: Path) -> None:
    syncs, renames = frozenset({"sync_dir"}), frozenset({"rename"})
    for first in range(1, 9):
        for second in range(1, 9):
            layout, daemon = create(tmp_path / f"s{first}-{second}"), FakeDaemon()
            fill(layout)
            killed = FaultyDisk(first, Fault.STOP_BEFORE, only=syncs)
            await until_it_stops(layout, daemon, killed)
            cut = killed.restarted(second, Fault.STOP_BEFORE, renames)
            await until_it_stops(layout, daemon, cut)
            cut.lose_unsynced()
            await whole_life(layout, daemon, OsDisk())
            audit(layout, daemon)


async def test_what_was_done_is_durable_when_each_step_returns(
    layout: Layout, daemon: FakeDaemon
) -> None:
    disk = FaultyDisk()
    fill(layout)
    await whole_life(layout, daemon, disk)
    disk.lose_unsynced()
    audit(layout, daemon)


async def insist(step: Callable[[], Awaitable[object]]) -> None:
    """Do a step again when the disk refused it, as the service's loops do."""
    try:
        await step()
    except OSError:
        await step()


async def stubborn_life(layout: Layout, daemon: FakeDaemon, disk: FaultyDisk) -> None:
    """The same life without a restart; what was left undone is done in the next round."""
    intake = intake_of(layout, daemon, disk=disk)
    async with intake.hold.opened():
        await insist(intake.results.catch_up)
        for now_s in (0.0, 10.0, 20.0, 30.0):
            await insist(partial(intake.drops.poll, now_s))
        for job_id in list(daemon.jobs):
            intake.results.job_ended(daemon.end(job_id))
        await insist(intake.results.publish)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault, error",
    [
        (Fault.FAIL, errno.ENOSPC),
        (Fault.FAIL, errno.EIO),
        (Fault.LOST_REPLY, errno.EIO),
    ],
)
@pytest.mark.usefixtures("no_real_fsync")
async def test_an_error_at_any_operation_is_got_over_without_a_restart(
    tmp_path: Path, fault: Fault, error: int
) -> None:
    # From 2 on: the first operation is in the start, which a refusing disk is allowed to stop.
    for at in range(2, 200):
        layout, daemon = create(tmp_path / f"s{at}"), FakeDaemon()
        disk = FaultyDisk(at, fault, error)
        fill(layout)
        await stubborn_life(layout, daemon, disk)
        audit(layout, daemon)
        if not disk.struck:
            assert at > 40
            return
    pytest.fail("no life ran through")


@pytest.mark.usefixtures("no_real_fsync")
async def test_a_rename_that_nfs_did_but_denies_is_found_out(tmp_path: Path) -> None:
    for at in range(1, 50):
        layout, daemon = create(tmp_path / f"s{at}"), FakeDaemon()
        disk = FaultyDisk(at, Fault.LOST_REPLY, errno.ENOENT, only=frozenset({"rename"}))
        fill(layout)
        await stubborn_life(layout, daemon, disk)
        audit(layout, daemon)
        if not disk.struck:
            return
    pytest.fail("no life ran through")


# ---------------------------------------------------------------------------------------- the service


class TellingDisk(OsDisk):
    """Tells the test when a folder has been made durable."""

    def __init__(self) -> None:
        self.synced = {"accepted": trio.Event(), "results": trio.Event()}

    def sync_dir(self, folder: Path) -> None:
        super().sync_dir(folder)
        if folder.name in self.synced:
            trio.from_thread.run_sync(self.synced[folder.name].set)


async def test_the_service_takes_drops_and_writes_results_by_itself(
    layout: Layout, daemon: FakeDaemon
) -> None:
    drop, disk = submit(layout.root, GOOD), TellingDisk()
    intake = intake_of(layout, daemon, disk=disk)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(intake.run)
            await disk.synced["accepted"].wait()
            assert look(layout.root, drop).state is State.ACCEPTED
            record = msgspec.json.encode(daemon.end("1753_1"))
            intake.on_event(Event("job.completed", 0, "1753_1", record=record))
            await disk.synced["results"].wait()
            nursery.cancel_scope.cancel()
    assert look(layout.root, drop).state is State.FINISHED


async def test_the_service_can_be_run_again(layout: Layout, daemon: FakeDaemon) -> None:
    """As the daemon does when it has failed."""
    intake = intake_of(layout, daemon)
    for number in range(2):
        (layout.incoming / f"{number:032x}.json").write_text(json.dumps(GOOD))
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                await nursery.start(intake.run)
                while names(layout.incoming) or names(layout.claimed / "me"):
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
    assert len(names(layout.accepted)) == len(daemon.jobs) == 2


async def test_the_service_does_not_start_on_an_unsafe_spool(
    layout: Layout, daemon: FakeDaemon
) -> None:
    layout.incoming.chmod(0o777)
    with pytest.raises(ConfigError, match="Anybody may write"):
        await intake_of(layout, daemon).run()


async def test_a_refusing_disk_is_told_once_and_tried_again(
    layout: Layout, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    submit(layout.root, GOOD)
    accepted = trio.Event()
    daemon.before_reply = accepted.set
    disk = FaultyDisk(2, Fault.FAIL, errno.EIO, only=frozenset({"scan"}))
    intake = SpoolIntake(layout.root, daemon, owner="me", poll_s=0.001, disk=disk)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(intake.run)
            await accepted.wait()
            nursery.cancel_scope.cancel()
    assert len([line for line in caplog.messages if "the disk refuses" in line]) == 1


# -------------------------------------------------------------------------------------- the plugin


class Context:
    """What the daemon would tell the plugin."""

    api_key = None
    key_file = None
    disk = REAL_DISK

    def __init__(self, root: Path, spool_dir: Path | None, settings: dict[str, object]) -> None:
        self.state_file = root / "state.json"
        self.media_dir = root / "media"
        self.spool_dir = spool_dir
        self._settings = settings

    def policy(self, name: str) -> Policy:
        raise ConfigError(f"there is no policy {name!r}")

    def settings(self, name: str, kind: type[S]) -> S:
        assert name == "spool-intake"
        return msgspec.convert(self._settings, kind)


class Offers:
    def __init__(self) -> None:
        self.made: dict[str, ServiceFactory] = {}

    def add(self, name: str, offered: ServiceFactory) -> None:
        self.made[name] = offered


def service(context: Context, daemon: FakeDaemon) -> object:
    offers = Offers()
    spool_intake.distconvd_register_services(offers)
    return offers.made["spool-intake"](context, daemon)


def test_a_daemon_without_a_spool_gets_no_intake(tmp_path: Path, daemon: FakeDaemon) -> None:
    assert service(Context(tmp_path, None, {}), daemon) is None


async def test_the_plugin_serves_the_spool_of_the_configuration(
    tmp_path: Path, daemon: FakeDaemon
) -> None:
    made = service(Context(tmp_path, tmp_path / "spool", {"owner": "dispatch-1"}), daemon)
    assert isinstance(made, SpoolIntake)
    async with made.hold.opened():
        submit(tmp_path / "spool", GOOD)
        await made.drops.poll(0.0)
    assert (tmp_path / "spool" / "claimed" / "dispatch-1").is_dir()
    assert len(daemon.jobs) == 1


async def test_the_owner_is_the_host_when_nobody_names_one(
    tmp_path: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "host name.example")
    made = service(Context(tmp_path, tmp_path / "spool", {}), daemon)
    assert isinstance(made, SpoolIntake)
    async with made.hold.opened():
        assert (tmp_path / "spool" / "claimed" / "host-name.example").is_dir()


def test_a_group_that_does_not_exist_is_told(tmp_path: Path, daemon: FakeDaemon) -> None:
    with pytest.raises(ConfigError, match="no group 'nobody-has-this'"):
        service(Context(tmp_path, tmp_path / "spool", {"group": "nobody-has-this"}), daemon)


@pytest.mark.parametrize("settings", [{"settle": 3}, {"poll_s": "x"}, {"owner": 3}])
def test_a_wrong_setting_is_refused(
    tmp_path: Path, daemon: FakeDaemon, settings: dict[str, object]
) -> None:
    with pytest.raises(msgspec.ValidationError):
        service(Context(tmp_path, tmp_path / "spool", settings), daemon)
