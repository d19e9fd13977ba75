"""The archive on a real disk, and a daemon that retires its ended jobs into it."""

from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from distconvd.core.archive import Archive
from distconvd.disk import REAL_DISK
from distconvd.dispatch.retire import Retired
from distconvd.testing.daemon import open_daemon
from distconvd.testing.faultdisk import FaultDisk

US = 1_700_000_000_000_000


def retired(number: int, text: str = "x") -> Retired:
    job_id = f"{US + number * 3_000_000}_{number}"
    job = msgspec.json.encode({"job_id": job_id, "error_message": text})
    return Retired(job_id, job, None)


def let_threads_keep_up(clock: MockClock) -> None:
    """Let time pass ten times as fast, without jumps: a jump could overtake a thread's disk access."""
    clock.autojump_threshold = float("inf")
    clock.rate = 10


async def test_every_job_is_found_by_its_id_over_many_files(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "a", REAL_DISK)
    entries = [retired(n) for n in range(50)]
    await archive.append(entries[:20])
    await archive.append(entries[20:])
    reopened = Archive(tmp_path / "a", REAL_DISK)
    for entry in entries:
        found = await reopened.find(entry.job_id)
        assert found is not None
        assert found.job == entry.job
    assert len(list((tmp_path / "a").rglob("*.ndjson"))) > 5


async def test_an_unknown_id_is_not_found(tmp_path: Path) -> None:
    archive = Archive(tmp_path, REAL_DISK)
    await archive.append([retired(1, text='"job_id":"1700000000000000_0"')])
    assert await archive.find("1700000000000000_0") is None
    assert await archive.find("no id of ours") is None


async def test_of_a_job_that_was_archived_twice_the_last_record_is_found(tmp_path: Path) -> None:
    archive = Archive(tmp_path, REAL_DISK)
    await archive.append([retired(1, "first")])
    await archive.append([retired(1, "second")])
    found = await archive.find(retired(1).job_id)
    assert found is not None
    assert found.job == retired(1, "second").job


async def test_a_line_cut_by_a_crash_affects_neither_its_neighbours_nor_the_next(
    tmp_path: Path,
) -> None:
    archive = Archive(tmp_path, REAL_DISK)
    await archive.append([retired(0)])
    (file,) = tmp_path.rglob("*.ndjson")
    with file.open("ab") as torn:
        torn.write(b'\n{"job":{"job_id":"170000')
    await archive.append([retired(1)])
    for number in (0, 1):
        assert await archive.find(retired(number).job_id) is not None


async def test_a_full_disk_is_reported_and_a_second_try_loses_nothing() -> None:
    disk = FaultDisk()
    archive = Archive(Path("/archive"), disk)
    disk.fail_all("ENOSPC")
    with pytest.raises(OSError, match="No space"):
        await archive.append([retired(1)])
    disk.heal()
    await archive.append([retired(1)])
    assert await archive.find(retired(1).job_id) is not None


async def test_a_daemon_answers_for_retired_jobs_from_its_archive(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    let_threads_keep_up(autojump_clock)
    limits = {"finished_jobs_max": 0}
    async with open_daemon(archive_dir=str(tmp_path / "a"), dispatch=limits) as daemon:
        fields = {"source_url": "http://h/a.mp4", "target_codec": "h264"}
        made = (await daemon.client.post("/jobs/", fields, idempotency_key="k")).json()
        path = f"/jobs/{made['job_id']}"
        done = await daemon.client.post(f"{path}/complete", {"output_url": "file:///o.mp4"})
        with trio.fail_after(60):
            while made["job_id"] in daemon.parts.dispatcher.state.jobs:
                await trio.sleep(0.1)
        assert (await daemon.client.get("/jobs/")).json() == []
        assert (await daemon.client.get(path)).json() == done.json()["job"]
        (attempt,) = (await daemon.client.get(f"{path}/attempts")).json()
        assert attempt["outcome"] == "completed"
        why = (await daemon.client.get(f"{path}/why")).json()
        assert why["status"] == "completed"
        assert why["summary"] == "It is done: file:///o.mp4. It is in the archive."
        for reply in (
            await daemon.client.post(f"{path}/retry"),
            await daemon.client.request("DELETE", path),
        ):
            assert reply.status == 409
            assert "has been archived" in reply.json()["detail"]
        assert (await daemon.client.post("/jobs/1_1/retry")).status == 404
        again = await daemon.client.post("/jobs/", fields, idempotency_key="k")
        assert again.json() == done.json()["job"]


async def test_a_batch_that_is_sent_again_gets_its_jobs_from_the_archive_too(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    let_threads_keep_up(autojump_clock)
    line = b'{"source_url":"http://h/a.mp4","target_codec":"h264"}'
    headers = {"idempotency_key": "b", "content_type": "application/x-ndjson"}
    async with open_daemon(
        archive_dir=str(tmp_path / "a"), dispatch={"finished_jobs_max": 0}
    ) as daemon:
        send = partial(daemon.client.post, "/jobs/", line + b"\n" + line, **headers)
        first, second = [answer["job"] for answer in (await send()).lines]
        done = await daemon.client.post(
            f"/jobs/{first['job_id']}/complete", {"output_url": "file:///o.mp4"}
        )
        with trio.fail_after(60):
            while first["job_id"] in daemon.parts.dispatcher.state.jobs:
                await trio.sleep(0.1)
        again = (await send()).lines
        assert [(answer["line"], answer["status"]) for answer in again] == [(1, 200), (2, 200)]
        assert [answer["job"] for answer in again] == [done.json()["job"], second]
