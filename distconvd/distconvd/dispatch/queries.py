"""Read jobs, engines and counts.

Reads go through the ledger as writes do, so that no reply shows what is not durable.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec

from distconvd.dispatch.engines import engine_view
from distconvd.dispatch.records import decode_job
from distconvd.dispatch.transaction import Transaction
from distconvd.model import Attempt, AttemptOutcome, JobStatus, canonical_codec

SCAN_MAX = 20_000
"""Jobs examined for one page; a filtered page may be short and still have a next one."""


class JobFilter(msgspec.Struct, frozen=True):
    """The filters of `GET /jobs/`; None: any value."""

    status: JobStatus | None = None
    engine: str | None = None
    codec: str | None = None
    label: tuple[str, str] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every job matches."""
        return self == JobFilter()

    def matches(self, record: bytes) -> bool:
        """Whether a job's record matches."""
        job = decode_job(record)
        return (
            (self.status is None or job.status is self.status)
            and (self.engine is None or job.assigned_engine == self.engine)
            and (
                self.codec is None
                or canonical_codec(job.target_codec) == canonical_codec(self.codec)
            )
            and (self.label is None or job.labels.get(self.label[0]) == self.label[1])
        )


class Page(msgspec.Struct, frozen=True):
    """One page of a listing."""

    records: Sequence[bytes]
    next_cursor: str | None
    """Ask for the next page with it; None: this is the last page."""


def get_job(tx: Transaction, job_id: str) -> bytes:
    """Return a job as on the wire; raises `NotFound`."""
    return tx.job_view(job_id)


def list_jobs(
    tx: Transaction, which: JobFilter, limit: int, cursor: str | None, *, newest_first: bool = False
) -> Page:
    """Return up to `limit` jobs after `cursor`, oldest first or `newest_first`."""
    tx.reads_all = True
    records: list[bytes] = []
    last: str | None = None
    in_order = tx.state.job_ids_before if newest_first else tx.state.job_ids_after
    for scanned, job_id in enumerate(in_order(cursor)):
        if len(records) >= limit or scanned >= SCAN_MAX:
            return Page(records, last)
        last = job_id
        record = tx.state.jobs[job_id]
        if which.is_empty or which.matches(record):
            records.append(tx.state.job_view(job_id))
    return Page(records, None)


def attempts(tx: Transaction, job_id: str) -> list[Attempt]:
    """Return every attempt of a job, the running one last; raises `NotFound`."""
    job = tx.job(job_id)
    found = list(tx.state.history(job_id).attempts)
    if job.status is JobStatus.ASSIGNED:
        found.append(
            Attempt(job.attempt, job.assigned_engine, job.started_at, None, AttemptOutcome.RUNNING)
        )
    return found


def list_engines(tx: Transaction) -> list[bytes]:
    """Return every engine as on the wire, by id."""
    tx.reads_all = True
    return [engine_view(tx, engine_id) for engine_id in sorted(tx.state.engines)]


class Counts(msgspec.Struct, frozen=True):
    """The numbers of jobs, queued jobs and engines."""

    jobs: dict[str, int]
    """By status."""
    queue_ready: int
    queue_delayed: int
    queue_oldest_s: float | None
    """Age of the oldest job in the queue; None if it is empty."""
    engines: dict[str, int]
    """By state; states without engines are left out."""


def counts(tx: Transaction) -> Counts:
    """Count jobs, the queue and engines."""
    tx.reads_all = True
    state = tx.state
    engines = Counter(entry.state.value for entry in state.pool.engines.values())
    return Counts(
        {status.value: state.statuses[status] for status in JobStatus},
        len(state.queue),
        len(state.delayed),
        _oldest_s(tx),
        dict(engines),
    )


def _oldest_s(tx: Transaction) -> float | None:
    created = [
        tx.state.job(job_id).created_at
        for job_id in tx.state.queue.oldest_pending.oldest().values()
    ]
    return max(0.0, (tx.now.wall_ms - min(created)) / 1000) if created else None


def get_engine(tx: Transaction, engine_id: str) -> bytes:
    """Return an engine as on the wire; raises `NotFound`."""
    return engine_view(tx, engine_id)
