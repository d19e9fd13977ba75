"""Run commands on the state: one at a time, each whole or not at all."""

import logging
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, TypeVar

from distconvd.dispatch.assign import serve_long_polls
from distconvd.dispatch.decision import Decision, Instant, Refusal
from distconvd.dispatch.guarded_policy import GuardedPolicy
from distconvd.dispatch.matching.queue import created_us
from distconvd.dispatch.records import normalize_engine, normalize_job
from distconvd.dispatch.retire import floor_of
from distconvd.dispatch.settings import DispatchSettings
from distconvd.dispatch.state import State
from distconvd.dispatch.transaction import Transaction
from distconvd.errors import DistconvError
from distconvd.model import TERMINAL_STATUSES, Job, JobStatus
from distconvd.policy import Policy
from distconvd.store import Change, Snapshot

log = logging.getLogger("distconvd.dispatch")

ORIGINAL_PREFIX = "as_found:jobs/"
"""In `meta`: a job's record as it was found in the store, where not all of it could be read."""

P = ParamSpec("P")
T = TypeVar("T")


class Dispatcher:
    """The core. Not thread-safe; every call is short and never waits.

    Args:
        settings: durations and bounds.
        policy: decides which engine gets the next job.
        fallback: decides where `policy` raises; usually the default policy.
        now: the moment of the start.
        snapshot: what the store contained; foreign records are normalized.
    """

    def __init__(
        self,
        settings: DispatchSettings,
        policy: Policy,
        fallback: Policy,
        now: Instant,
        snapshot: Snapshot | None = None,
    ) -> None:
        self.settings = settings
        self.policy = GuardedPolicy(policy, fallback)
        self.state = State(settings, now)
        self.state.queue.share_of = self.policy.share_of
        self.read_only = False
        """Set while changes cannot be made durable: long polls are not served meanwhile."""
        self.normalized: list[Change] = []
        """Records that were normalized on loading; the first commit makes them durable."""
        if snapshot is not None:
            self._load(snapshot)

    def decide(
        self,
        command: Callable[Concatenate[Transaction, P], T],
        now: Instant,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Decision[T] | Refusal:
        """Run one command. If it raises a `DistconvError` that is a refusal, anything else
        propagates; in both cases nothing has changed."""
        self.state.runtime.now = now
        tx = Transaction(self.state, self.settings, self.policy)
        try:
            reply = command(tx, *args, **kwargs)
            is_read = not tx.changes
            if not self.read_only:
                serve_long_polls(tx)
        except BaseException as error:
            self.rollback(tx.rollback_changes[::-1])
            if isinstance(error, DistconvError):
                return Refusal(error, tx.read_set, tx.reads_all)
            raise
        return Decision(
            reply,
            tx.changes,
            tx.rollback_changes[::-1],
            tx.events,
            tx.read_set,
            tx.reads_all,
            is_read,
        )

    def rollback(self, rollback_changes: Sequence[Change]) -> None:
        """Restore records, newest change first, after a failed command or commit."""
        for change in rollback_changes:
            self.state.apply(change)
            if change.table == "jobs":
                self._watch_restored(change.key)
            elif change.table == "engines" and change.key in self.state.engines:
                record = self.state.engine(change.key).record
                self.state.runtime.watch_engine(change.key, record.quarantined_until)

    def _watch_restored(self, job_id: str) -> None:
        """Restore or end the lease of a job whose change was rolled back."""
        runtime = self.state.runtime
        if job_id not in self.state.jobs or (
            self.state.job(job_id).status is not JobStatus.ASSIGNED
        ):
            runtime.end_lease(job_id)
        elif job_id not in runtime.leases:
            runtime.grant_lease(job_id)

    def _load(self, snapshot: Snapshot) -> None:
        """Load what the store contained. Engines come first, as jobs are indexed on them."""
        state, runtime = self.state, self.state.runtime
        state.attempts, state.meta = snapshot.attempts, snapshot.meta
        for engine_id, data in snapshot.engines.items():
            engine = normalize_engine(engine_id, data)
            if engine is None:
                ids = {"engine_id": engine_id}
                log.error("engine record %r cannot be read and is skipped", engine_id, extra=ids)
                continue
            self._load_record(
                Change("engines", engine_id, engine[1]), rewritten=engine[1] is not data
            )
            runtime.watch_engine(engine_id, engine[0].quarantined_until)
        ended: list[tuple[int, str]] = []
        for job_id in sorted(snapshot.jobs):
            found = normalize_job(job_id, snapshot.jobs[job_id])
            if found is None:
                ids = {"job_id": job_id}
                log.error("job record %r cannot be read and is skipped", job_id, extra=ids)
                continue
            job, before = found.job, snapshot.jobs[job_id]
            if found.is_repaired:
                original_change = Change("meta", f"{ORIGINAL_PREFIX}{job_id}", before)
                self._load_record(original_change, rewritten=True)
            self._load_record(
                Change("jobs", job_id, found.record), job, rewritten=found.record is not before
            )
            runtime.last_id_us = max(runtime.last_id_us, created_us(job_id))
            if job.status is JobStatus.ASSIGNED:
                runtime.grant_lease(job_id)
            if job.status in TERMINAL_STATUSES:
                ended.append((job.finished_at or job.updated_at, job_id))
        state.finished = dict.fromkeys(job_id for _, job_id in sorted(ended))
        state.queue.dirty.clear()
        state.pool.dirty.clear()
        runtime.last_id_us = max(runtime.last_id_us, floor_of(state))

    def _load_record(self, change: Change, job: Job | None = None, *, rewritten: bool) -> None:
        self.state.apply(change, None, job)
        if rewritten:
            self.normalized.append(change)
