"""A stop or an error at any operation of the disk neither loses nor doubles a drop."""

import errno
import json
from functools import partial
from pathlib import Path

import pytest
from tests.plugins.kit import each_fault, insist
from tests.plugins.spool_intake.kit import GOOD, FakeDaemon, drop_names, intake_of, names

from distconv_spool import Layout, create, submit
from distconv_spool.disk import OsDisk
from distconv_spool.testing import Fault, FaultyDisk, PowerCut


def fill(layout: Layout) -> None:
    """Add four drops: one keyed, one written in place, and two that are rejected."""
    submit(layout.root, GOOD, key="a" * 32)
    (layout.incoming / "b.toml").write_text('source_url = "file:///b"')
    (layout.incoming / "c.json").write_text("{}")
    (layout.incoming / "d.json").write_text("?")


async def whole_life(layout: Layout, daemon: FakeDaemon, disk: OsDisk) -> None:
    """Run all steps: start, submit every drop, end every job, write every result."""
    intake = intake_of(layout, daemon, disk=disk)
    async with intake.access.opened():
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
    """Check that no drop is lost or doubled, and that no file is left over."""
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
    for at, disk in each_fault(fault, more_than=40):
        layout, daemon = create(tmp_path / f"s{at}"), FakeDaemon()
        fill(layout)
        await until_it_stops(layout, daemon, disk)
        if lose:
            disk.lose_unsynced()
        await whole_life(layout, daemon, OsDisk())
        audit(layout, daemon)


@pytest.mark.slow
@pytest.mark.usefixtures("no_real_fsync")
async def test_a_power_cut_during_the_recovery_from_a_kill_neither_loses_nor_doubles_a_drop(
    tmp_path: Path,
) -> None:
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


async def test_each_step_is_durable_when_it_returns(layout: Layout, daemon: FakeDaemon) -> None:
    disk = FaultyDisk()
    fill(layout)
    await whole_life(layout, daemon, disk)
    disk.lose_unsynced()
    audit(layout, daemon)


async def stubborn_life(layout: Layout, daemon: FakeDaemon, disk: FaultyDisk) -> None:
    """Run all steps without a restart; what failed is done in the next round."""
    intake = intake_of(layout, daemon, disk=disk)
    async with intake.access.opened():
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
async def test_the_service_recovers_from_an_error_at_any_operation_without_a_restart(
    tmp_path: Path, fault: Fault, error: int
) -> None:
    # From 2 on: the first operation belongs to the start, which a disk error may prevent.
    for at, disk in each_fault(fault, error, first=2, more_than=40):
        layout, daemon = create(tmp_path / f"s{at}"), FakeDaemon()
        fill(layout)
        await stubborn_life(layout, daemon, disk)
        audit(layout, daemon)


@pytest.mark.usefixtures("no_real_fsync")
async def test_a_rename_that_nfs_did_but_reported_as_failed_is_recognized(tmp_path: Path) -> None:
    for at, disk in each_fault(Fault.LOST_REPLY, errno.ENOENT, only=frozenset({"rename"})):
        layout, daemon = create(tmp_path / f"s{at}"), FakeDaemon()
        fill(layout)
        await stubborn_life(layout, daemon, disk)
        audit(layout, daemon)
