"""Write the last record of each job that came through the spool and has ended.

The disk decides: a job is ours if `accepted/` names it, and its record must be written if
`results/` lacks it. The memory here only saves looking there.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Protocol

import msgspec
import trio

from distconv_plugins.shared.spool_worker import SpoolAccess
from distconv_spool import Owner
from distconvd.errors import NotFound
from distconvd.model import TERMINAL_STATUSES, Job
from distconvd.plugin_api import Event

_CATCH_UP_CHUNK = 1024
_PUBLISH_CHUNK = 64


class Jobs(Protocol):
    """The part of the daemon that the results need."""

    async def job(self, job_id: str) -> Job:
        """Return a job's present record; raises `NotFound` if this daemon does not know the job."""
        ...


class Results:
    """Writes the last records of the spool's jobs.

    Args:
        access: the spool, opened before any method but `on_event` is called.
        jobs: the daemon.
    """

    def __init__(self, access: SpoolAccess, jobs: Jobs) -> None:
        self._access = access
        self._jobs = jobs
        # An id for each job of the spool that the daemon itself remembers, so bounded like those.
        self._mine: set[str] = set()
        self._ended_jobs: dict[str, Job] = {}
        self._news = trio.Event()

    async def take_on(self, job: Job) -> None:
        """Make a job ours. It may have ended before, and its event was ignored: so ask once."""
        self._mine.add(job.job_id)
        try:
            job = await self._jobs.job(job.job_id)
        except NotFound:
            pass  # submitted long ago, ended and archived: `job` is already its last record
        if job.status in TERMINAL_STATUSES:
            self.job_ended(job)

    def on_event(self, event: Event) -> None:
        """Note the end of a job of ours; called after the event is durable."""
        if event.job_id in self._mine and event.record is not None:
            job = msgspec.json.decode(event.record, type=Job)
            if job.status in TERMINAL_STATUSES:
                self.job_ended(job)

    def job_ended(self, job: Job) -> None:
        """Note a job's end; jobs that are not the spool's are ignored."""
        if job.job_id in self._mine:
            self._ended_jobs[job.job_id] = job
            self._news.set()

    async def catch_up(self) -> None:
        """Read from `accepted/` which jobs are ours, and note the ends that have no result yet."""
        ids = await self._access.do(Owner.accepted_jobs)
        while chunk := await self._access.do(_with_results, ids):
            for job_id, has_result in chunk:
                try:
                    job = await self._jobs.job(job_id)
                except NotFound:
                    continue  # another daemon's on the same spool, or retired by now
                self._mine.add(job_id)
                if job.status in TERMINAL_STATUSES and not has_result:
                    self.job_ended(job)

    async def publish(self) -> None:
        """Write the results of all ends noted so far; loses none when it raises `OSError`."""
        while batch := list(islice(self._ended_jobs.items(), _PUBLISH_CHUNK)):
            records = [(job_id, _record(job)) for job_id, job in batch]
            await self._access.do(Owner.publish_results, records)
            for job_id, job in batch:
                # A retried job may have ended again in the meantime: keep that end to be written.
                if self._ended_jobs[job_id] is job:
                    del self._ended_jobs[job_id]

    def news(self) -> trio.Event:
        """Return an event that is set at the next end; get it before `publish`, to miss none."""
        self._news = trio.Event()
        return self._news


def _with_results(owner: Owner, job_ids: Iterator[str]) -> list[tuple[str, bool]]:
    return [(job_id, owner.has_result(job_id)) for job_id in islice(job_ids, _CATCH_UP_CHUNK)]


def _record(job: Job) -> bytes:
    return msgspec.json.format(msgspec.json.encode(job), indent=2) + b"\n"
