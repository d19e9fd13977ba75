"""Keep the records, byte for byte as on disk, and the indexes that are derived from them.

Jobs and attempts are kept encoded: a struct exists only during a decision, which keeps a stored job
near its size on the wire and makes "memory equals disk" literally true. Everything else (queue,
pool, listings) is derived in `apply`, whichever way a record changes, so a rollback is just another
change.
"""

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterator

import msgspec

from distconvd.dispatch.decision import Instant
from distconvd.dispatch.matching import EngineEntry, EnginePool, JobQueue
from distconvd.dispatch.records import decode_engine, decode_history, decode_job
from distconvd.dispatch.runtime import Runtime
from distconvd.dispatch.settings import DispatchSettings
from distconvd.errors import NotFound
from distconvd.model import (
    TERMINAL_STATUSES,
    AttemptHistory,
    EngineState,
    Job,
    JobStatus,
    Progress,
)
from distconvd.store import Change


class State:
    """Records and indexes. Only a transaction changes it, except for runtime state."""

    def __init__(self, settings: DispatchSettings, now: Instant) -> None:
        self.runtime = Runtime(settings, now)
        self.jobs: dict[str, bytes] = {}
        self.engines: dict[str, bytes] = {}
        self.attempts: dict[str, bytes] = {}
        self.meta: dict[str, bytes] = {}
        self.queue = JobQueue()
        self.pool = EnginePool()
        self.assigned: dict[str, dict[str, None]] = {}
        """Engine id to the jobs assigned to it, oldest first; also for engines not registered."""
        self.delayed: set[str] = set()
        """Pending jobs that wait for their `not_before`."""
        self.reservations: dict[str, str] = {}
        """Job id to the engine that it is reserved for; runtime only."""
        self.hold_reasons: dict[str, str] = {}
        """Job id to why the policy holds it; runtime only, for `why`."""
        self.progress: dict[str, Progress] = {}
        """Progress of assigned jobs; runtime only."""
        self.statuses: Counter[JobStatus] = Counter()
        self.finished: dict[str, None] = {}
        """Ended jobs, in the order in which they ended."""
        self.order: list[str] = []
        """Job ids, sorted: the order of listings."""

    def job(self, job_id: str) -> Job:
        """Return a job; raises `NotFound`."""
        record = self.jobs.get(job_id)
        if record is None:
            raise NotFound("Job not found")
        return decode_job(record)

    def history(self, job_id: str) -> AttemptHistory:
        """Return a job's ended attempts."""
        record = self.attempts.get(job_id)
        return AttemptHistory(job_id) if record is None else decode_history(job_id, record)

    def engine(self, engine_id: str) -> EngineEntry:
        """Return an engine; raises `NotFound`."""
        entry = self.pool.engines.get(engine_id)
        if entry is None:
            raise NotFound("Engine not found")
        return entry

    def job_ids_after(self, cursor: str | None) -> Iterator[str]:
        """Yield job ids in listing order, after `cursor`; stable while jobs come and go."""
        at = 0 if cursor is None else bisect_right(self.order, cursor)
        while at < len(self.order):
            yield self.order[at]
            at += 1

    def job_ids_before(self, cursor: str | None) -> Iterator[str]:
        """Yield job ids newest first, before `cursor`; stable while jobs come and go."""
        at = len(self.order) if cursor is None else bisect_left(self.order, cursor)
        while at > 0:
            at -= 1
            yield self.order[at]

    def apply(self, change: Change, old_job: Job | None = None, new_job: Job | None = None) -> None:
        """Make one change in memory; structs that the caller has already save a decode."""
        if change.table == "jobs":
            self._apply_job(change, old_job, new_job)
        elif change.table == "engines":
            self._apply_engine(change)
        else:
            records = self.attempts if change.table == "attempts" else self.meta
            if change.record is None:
                records.pop(change.key, None)
            else:
                records[change.key] = change.record

    def _apply_job(self, change: Change, old: Job | None, new: Job | None) -> None:
        job_id, record = change.key, change.record
        before = self.jobs.get(job_id)
        if before is not None:
            self._unindex_job(old or decode_job(before))
        if record is None:
            self.jobs.pop(job_id, None)
            self.runtime.forget_waits(job_id)
            if before is not None:
                del self.order[bisect_left(self.order, job_id)]
            return
        self.jobs[job_id] = record
        if before is None:
            if not self.order or job_id > self.order[-1]:
                self.order.append(job_id)
            else:
                insort(self.order, job_id)
        self._index_job(new or decode_job(record))

    def _unindex_job(self, job: Job) -> None:
        """Remove a job from the indexes of its old status."""
        self.statuses[job.status] -= 1
        if job.status is JobStatus.PENDING:
            self.queue.discard(job.job_id)
            self.delayed.discard(job.job_id)
            self.hold_reasons.pop(job.job_id, None)
            self.unreserve(job.job_id)
        elif job.status is JobStatus.ASSIGNED and job.assigned_engine is not None:
            self._index_assignment(job.assigned_engine, job.job_id, is_assigned=False)
        else:
            self.finished.pop(job.job_id, None)

    def _index_job(self, job: Job) -> None:
        """Add a job to the indexes of its present status."""
        self.statuses[job.status] += 1
        if job.status is not JobStatus.PENDING:
            self.runtime.forget_waits(job.job_id)
        if job.status in TERMINAL_STATUSES:
            self.finished[job.job_id] = None
        if job.status is JobStatus.ASSIGNED:
            if job.assigned_engine is not None:
                self._index_assignment(job.assigned_engine, job.job_id, is_assigned=True)
            return
        self.progress.pop(job.job_id, None)
        if job.status is JobStatus.PENDING and not job.paused:
            if self.runtime.is_delayed(job):
                self.delayed.add(job.job_id)
                self.runtime.timers.add(self.runtime.delay_end_s(job), "delay", job.job_id)
            else:
                self.queue.add(job)

    def _index_assignment(self, engine_id: str, job_id: str, *, is_assigned: bool) -> None:
        with self.pool.changing(engine_id) as entry:
            assigned = self.assigned.setdefault(engine_id, {})
            if is_assigned:
                assigned[job_id] = None
            else:
                assigned.pop(job_id, None)
                if not assigned and entry is None:
                    del self.assigned[engine_id]
            if entry is not None:
                self.refresh_engine(entry)

    def _apply_engine(self, change: Change) -> None:
        engine_id = change.key
        with self.pool.changing(engine_id) as entry:
            if change.record is None:
                self.engines.pop(engine_id, None)
                self.pool.engines.pop(engine_id, None)
                for job_id in list(entry.reserved if entry else ()):
                    self.unreserve(job_id, requeue=True)
                if not self.assigned.get(engine_id):
                    self.assigned.pop(engine_id, None)
                return
            self.engines[engine_id] = change.record
            record = decode_engine(change.record)
            if entry is None:
                entry = EngineEntry(record, self.runtime.now.mono_s, self.runtime.now.wall_ms)
                entry.assigned = self.assigned.setdefault(engine_id, {})
                self.pool.engines[engine_id] = entry
            else:
                entry.set_record(record)
                self.refresh_engine(entry)

    def refresh_engine(self, entry: EngineEntry) -> None:
        """Update an engine's place in the pool after a change of its jobs or its state.

        Jobs reserved for an engine that is no longer idle, or beyond its free slots, are requeued.
        """
        with self.pool.changing(entry.record.engine_id):
            is_idle = not entry.reservation_expired and entry.state is EngineState.IDLE
            left = entry.record.slots - len(entry.assigned) if is_idle else 0
            for job_id in list(entry.reserved)[left:]:
                self.unreserve(job_id, requeue=True)

    def reserve(self, job_id: str, engine_id: str, until_s: float) -> None:
        """Take a job out of the queue and reserve it for an engine that has not asked yet."""
        self.queue.discard(job_id)
        self.reservations[job_id] = engine_id
        with self.pool.changing(engine_id):
            self.pool.engines[engine_id].reserved[job_id] = until_s

    def unreserve(self, job_id: str, *, requeue: bool = False) -> None:
        """End a reservation, if there is one; with `requeue` the job goes back to the queue."""
        engine_id = self.reservations.pop(job_id, None)
        if engine_id is None:
            return
        with self.pool.changing(engine_id) as entry:
            if entry is not None:
                entry.reserved.pop(job_id, None)
        if requeue:
            self.queue.add(self.job(job_id))

    def job_view(self, job_id: str) -> bytes:
        """Return a job as on the wire: its record, with its latest progress if there is any."""
        record = self.jobs.get(job_id)
        if record is None:
            raise NotFound("Job not found")
        progress = self.progress.get(job_id)
        if progress is None:
            return record
        return msgspec.json.encode(msgspec.structs.replace(decode_job(record), progress=progress))
