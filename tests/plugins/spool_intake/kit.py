"""Set up an intake on a spool, and a fake daemon that outlives every intake."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from distconv_plugins.spool_intake.plugin import SpoolIntake
from distconv_spool import Drop, Layout, look, submit
from distconv_spool.disk import OsDisk
from distconvd.errors import BadRequest, NotFound
from distconvd.model import Job, JobStatus

GOOD = {"source_url": "file:///a.mov", "target_codec": "av1"}


class FakeDaemon:
    """Loses nothing: each key is one job; it outlives every intake of a test."""

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


def intake_of(
    layout: Layout, daemon: FakeDaemon, owner: str = "me", disk: OsDisk | None = None
) -> SpoolIntake:
    return SpoolIntake(layout.root, daemon, owner=owner, disk=disk)


@asynccontextmanager
async def one_taken_in(
    layout: Layout, daemon: FakeDaemon, disk: OsDisk | None = None
) -> AsyncGenerator[tuple[SpoolIntake, Drop]]:
    """Yield a running intake that has submitted one drop, and that drop; its job is 1753_1."""
    drop = submit(layout.root, GOOD)
    intake = intake_of(layout, daemon, disk=disk)
    async with intake.access.opened():
        await intake.drops.poll(0.0)
        yield intake, drop


def last_status(layout: Layout, drop: Drop) -> object:
    """Return the status in the record that the submitter of a drop finds."""
    record = look(layout.root, drop).record
    assert record is not None
    return record["status"]


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.name != ".lock")


def drop_names(folder: Path) -> list[str]:
    return sorted(name.split("~", 1)[1] for name in names(folder))


async def take_in(
    layout: Layout, daemon: FakeDaemon, owner: str = "me", disk: OsDisk | None = None
) -> None:
    """Start an intake, let every file become stable, and stop it."""
    intake = intake_of(layout, daemon, owner, disk)
    async with intake.access.opened():
        for now_s in (0.0, 10.0, 20.0):
            await intake.drops.poll(now_s)
