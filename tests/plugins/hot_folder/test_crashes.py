"""A stop or an error at any operation of the disk neither loses nor doubles a video."""

import errno
import json
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from tests.plugins.hot_folder.kit import Site
from tests.plugins.kit import each_fault, insist

from distconv_plugins.hot_folder.orders import PROBLEM_NAME
from distconv_spool.disk import OsDisk
from distconv_spool.testing import Fault, PowerCut
from distconvd.model import JobStatus


def fill(site: Site) -> None:
    """Add four videos, with valid and with wrong settings."""
    site.settings("h264", 'output = "ready"')
    site.settings("vp9", "?")
    site.video("h264/a.mov", "a")
    site.video("h264/sub/b.mov", "bb")
    site.video("av1/c.mov", "ccc")
    site.video("vp9/d.mov", "dddd")


def audit(site: Site) -> None:
    """Check that no video is lost or doubled, and that each job's end has a whole report."""
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
    for at, disk in each_fault(fault, more_than=60):
        site = Site(tmp_path / f"s{at}")
        fill(site)
        await until_it_stops(site, disk)
        if lose:
            disk.lose_unsynced()
        await site.live(ends=True)
        await site.live()
        audit(site)


@pytest.mark.slow
@pytest.mark.usefixtures("no_real_fsync")
async def test_a_stop_and_then_a_rename_of_all_videos_neither_loses_nor_doubles_one(
    tmp_path: Path,
) -> None:
    for at, disk in each_fault(Fault.STOP_BEFORE):
        site = Site(tmp_path / f"s{at}")
        fill(site)
        await until_it_stops(site, disk)
        disk.lose_unsynced()
        for path in ("h264/a", "h264/sub/b", "av1/c"):
            (site.watch / f"{path}.mov").rename(site.watch / f"{path}2.mov")
        # An engine fails a job whose source is gone.
        for _ in range(3):
            await live_and_fail_what_is_gone(site)
        done = [job for job in site.daemon.all if job.status is JobStatus.COMPLETED]
        names = sorted(Path(job.source_url).stem.rstrip("2") for job in done)
        assert names == ["a", "b", "c"], at


async def live_and_fail_what_is_gone(site: Site) -> None:
    service = site.service()
    async with service.opened():
        await service.catch_up()
        await site.scan(service)
        for job in site.daemon.all:
            if job.status is JobStatus.PENDING:
                is_there = Path(unquote(urlsplit(job.source_url).path)).exists()
                status = JobStatus.COMPLETED if is_there else JobStatus.FAILED_PERMANENTLY
                service.on_event(site.daemon.end(job.job_id, status))
        await service.publish()


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault, error",
    [(Fault.FAIL, errno.ENOSPC), (Fault.FAIL, errno.EROFS), (Fault.LOST_REPLY, errno.EIO)],
)
@pytest.mark.usefixtures("no_real_fsync")
async def test_the_service_recovers_from_an_error_at_any_operation_without_a_restart(
    tmp_path: Path, fault: Fault, error: int
) -> None:
    # From 2 on: the first operation belongs to the start, which a disk error may prevent.
    for at, disk in each_fault(fault, error, first=2, more_than=60):
        site = Site(tmp_path / f"s{at}")
        fill(site)
        service = site.service(disk)
        async with service.opened():
            await insist(service.catch_up)
            for _ in range(4):
                await insist(partial(site.scan, service, times=1))
            for job in site.daemon.all:
                service.on_event(site.daemon.end(job.job_id))
            await insist(service.publish)
        audit(site)
