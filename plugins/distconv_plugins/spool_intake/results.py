"""Results: which jobs came by the spool, and the last record of each that has ended.

Both are told by the disk: a job is ours when `accepted/` names it, and its end is to be written when
`results/` lacks it. What is remembered here only saves looking.
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
    """What the results need of the daemon."""

    async def job(self, job_id: str) -> Job:
        """Return a job as it now stands; raises `NotFound` when this daemon has no such job."""
        ...


class Results:
    """Writes the ends of the spool's jobs.

    Args:
        hold: the spool, opened before any method but `on_event` is called.
        jobs: the daemon.
    """

    def __init__(self, access: SpoolAccess, jobs: Jobs) -> None:
        self._access = access
        self._jobs = jobs
        # Bounded by what the daemon itself remembers: an id for each of its jobs from here.
        self._mine: set[str] = set()
        self._ended: dict[str, Job] = {}
        self._news = trio.Event()

    async def take_on(self, job: Job) -> None:
        """Make a job ours. It may have ended before this, unheard: so look once, afterwards."""
        self._mine.add(job.job_id)
        try:
            job = await self._jobs.job(job.job_id)
        except NotFound:
            pass  # submitted long ago, ended and archived: the reply was its last record
        if job.status in TERMINAL_STATUSES:
            self.job_ended(job)

    def on_event(self, event: Event) -> None:
        """Hear of an event, after it is durable."""
        if event.job_id in self._mine and event.record is not None:
            job = msgspec.json.decode(event.record, type=Job)
            if job.status in TERMINAL_STATUSES:
                self.job_ended(job)

    def job_ended(self, job: Job) -> None:
        """Take note of a job's end; others than the spool's are ignored."""
        if job.job_id in self._mine:
            self._ended[job.job_id] = job
            self._news.set()

    async def catch_up(self) -> None:
        """Learn from `accepted/` which jobs are ours, and note the ends that have no result yet."""
        ids = await self._access.do(Owner.accepted_jobs)
        while chunk := await self._access.do(_with_results, ids):
            for job_id, has_result in chunk:
                try:
                    job = await self._jobs.job(job_id)
                except NotFound:
                    continue  # another daemon's on the same spool, or forgotten by now
                self._mine.add(job_id)
                if job.status in TERMINAL_STATUSES and not has_result:
                    self.job_ended(job)

    async def publish(self) -> None:
        """Write the results of all ends noted so far; raises `OSError`, and then loses none."""
        while batch := list(islice(self._ended.items(), _PUBLISH_CHUNK)):
            records = [(job_id, _record(job)) for job_id, job in batch]
            await self._access.do(Owner.publish_results, records)
            for job_id, job in batch:
                # A retried job may have ended again in the meantime: that end is still to write.
                if self._ended[job_id] is job:
                    del self._ended[job_id]

    def news(self) -> trio.Event:
        """Return an event that is set at the next end; take it before `publish`, to miss none."""
        self._news = trio.Event()
        return self._news


def _with_results(owner: Owner, job_ids: Iterator[str]) -> list[tuple[str, bool]]:
    return [(job_id, owner.has_result(job_id)) for job_id in islice(job_ids, _CATCH_UP_CHUNK)]


def _record(job: Job) -> bytes:
    return msgspec.json.format(msgspec.json.encode(job), indent=2) + b"\n"
