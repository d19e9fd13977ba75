"""A job from a drop gets its last record in results/, whenever and however often it ends."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from tests.plugins.spool_intake.kit import (
    GOOD,
    FakeDaemon,
    intake_of,
    last_status,
    names,
    one_taken_in,
    take_in,
)

from distconv_spool import Layout, State, look, submit
from distconv_spool.disk import OsDisk
from distconv_spool.testing import Fault, FaultyDisk
from distconvd.errors import NotFound
from distconvd.model import Job, JobStatus


async def test_an_ended_job_gets_its_last_record_in_results(
    layout: Layout, daemon: FakeDaemon
) -> None:
    async with one_taken_in(layout, daemon) as (intake, drop):
        intake.results.job_ended(daemon.end("1753_1"))
        await intake.results.publish()
    assert look(layout.root, drop).state is State.FINISHED
    assert last_status(layout, drop) == "completed"


async def test_a_job_that_did_not_come_from_the_spool_gets_no_result(
    layout: Layout, daemon: FakeDaemon
) -> None:
    intake = intake_of(layout, daemon)
    async with intake.access.opened():
        intake.results.job_ended(Job("9_9", "file:///a", "av1", status=JobStatus.COMPLETED))
        await intake.results.publish()
    assert names(layout.results) == []


async def test_a_job_that_ends_before_its_submission_is_answered_gets_its_result(
    layout: Layout, daemon: FakeDaemon
) -> None:
    submit(layout.root, GOOD)
    intake = intake_of(layout, daemon)
    async with intake.access.opened():
        daemon.before_reply = lambda: intake.results.job_ended(daemon.end("1753_1"))
        await intake.drops.poll(0.0)
        await intake.results.publish()
    assert names(layout.results) == ["1753_1.json"]


async def test_the_result_of_a_retried_job_replaces_the_first_one(
    layout: Layout, daemon: FakeDaemon
) -> None:
    async with one_taken_in(layout, daemon) as (intake, drop):
        for status in (JobStatus.FAILED_PERMANENTLY, JobStatus.COMPLETED):
            intake.results.job_ended(daemon.end("1753_1", status))
            await intake.results.publish()
    assert last_status(layout, drop) == "completed"


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
    async with intake.access.opened():
        await intake.drops.poll(0.0)
        await intake.results.publish()
    assert look(layout.root, drop).state is State.FINISHED


class WritingDisk(OsDisk):
    """Calls a function in the middle of each write."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self.meanwhile = meanwhile

    def write_new(self, path: Path, data: bytes) -> None:
        super().write_new(path, data)
        trio.from_thread.run_sync(self.meanwhile)


async def test_a_job_that_ends_again_while_its_result_is_written_gets_the_new_result(
    layout: Layout, daemon: FakeDaemon
) -> None:
    ends = [JobStatus.COMPLETED]

    def end_again() -> None:
        if ends:
            intake.results.job_ended(daemon.end("1753_1", ends.pop()))

    drop = submit(layout.root, GOOD)
    intake = intake_of(layout, daemon, disk=WritingDisk(end_again))
    async with intake.access.opened():
        await intake.drops.poll(0.0)
        intake.results.job_ended(daemon.end("1753_1", JobStatus.FAILED_PERMANENTLY))
        await intake.results.publish()
    assert last_status(layout, drop) == "completed"


async def test_a_result_that_is_missing_is_written_at_the_next_start(
    layout: Layout, daemon: FakeDaemon
) -> None:
    submit(layout.root, GOOD)
    await take_in(layout, daemon)
    daemon.end("1753_1")
    (layout.accepted / "8_8~other-daemons.json").touch()
    intake = intake_of(layout, daemon)
    async with intake.access.opened():
        await intake.results.catch_up()
        await intake.results.publish()
    assert names(layout.results) == ["1753_1.json"]


async def test_a_result_that_cannot_be_written_is_kept_and_written_later(
    layout: Layout, daemon: FakeDaemon
) -> None:
    disk = FaultyDisk(1, Fault.FAIL, errno.ENOSPC, only=frozenset({"write_new"}))
    async with one_taken_in(layout, daemon, disk) as (intake, _):
        intake.results.job_ended(daemon.end("1753_1"))
        with pytest.raises(OSError, match="No space"):
            await intake.results.publish()
        await intake.results.publish()
    assert names(layout.results) == ["1753_1.json"]
