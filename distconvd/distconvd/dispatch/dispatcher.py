"""Run commands on the state, and own the runtime state that is never stored."""

import logging
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, TypeVar

from distconvd.dispatch.answers import checked_answer
from distconvd.dispatch.assign import serve_long_polls
from distconvd.dispatch.decision import Decision, Instant
from distconvd.dispatch.matching import AvailableEngines
from distconvd.dispatch.matching.queue import ONE_SHARE, created_us
from distconvd.dispatch.records import normalize_engine, normalize_job
from distconvd.dispatch.retire import floor_of
from distconvd.dispatch.settings import DispatchSettings
from distconvd.dispatch.state import State
from distconvd.dispatch.timers import Timers
from distconvd.dispatch.transaction import Transaction
from distconvd.model import TERMINAL_STATUSES, Job, JobStatus
from distconvd.policy import Hold, Place, Policy, Share, SharingPolicy
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
        self.policy = policy
        self.fallback = fallback
        self.state = State()
        if isinstance(policy, SharingPolicy):
            self._sharing = policy
            self.state.queue.share_of = self._share_of
        self.timers = Timers()
        self.leases: dict[str, float] = {}
        """Job id to when the lease of its running attempt expires (monotonic seconds)."""
        self.unacked: dict[str, dict[str, None]] = {}
        """Engine id to its unacknowledged assignments."""
        self.read_only = False
        """Set while changes cannot be made durable: long polls are not served meanwhile."""
        self.started_s = now.mono_s
        self.clock_offset_s = now.wall_ms / 1000 - now.mono_s
        """How far the wall clock was ahead of the monotonic one when they were last compared."""
        self.last_id_us = 0
        self.id_counter = 0
        self.policy_failures = 0
        self.leases_expired = 0
        self.normalized: list[Change] = []
        """Records that were normalized on loading; the first commit makes them durable."""
        if snapshot is not None:
            self._load(snapshot, now)

    def decide(
        self,
        command: Callable[Concatenate[Transaction, P], T],
        now: Instant,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Decision[T]:
        """Run one command. Whatever it raises propagates, and then nothing has changed."""
        tx = self._begin(now)
        try:
            reply = command(tx, *args, **kwargs)
            is_read = not tx.changes
            if not self.read_only:
                serve_long_polls(tx)
        except BaseException:
            self.rollback(tx.rollback_changes[::-1])
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
                self._watch_engine(change.key, record.quarantined_until)

    def place(self, job: Job, engines: AvailableEngines, now_ms: int) -> Place | Hold:
        """Ask the policy; the default policy decides if it raises or answers nonsense."""
        try:
            answer: object = self.policy.place(job, engines, now_ms)
            return checked_answer(answer, engines)
        except (Exception, SystemExit):
            self.policy_failures += 1
            log.exception(
                "policy %s failed for a job; the default policy decides this one",
                name_of(self.policy),
                extra={"job_id": job.job_id},
            )
        return self.fallback.place(job, engines, now_ms)

    def _share_of(self, job: Job) -> Share:
        """Ask the policy for the share of a job; without a valid answer it is the default share."""
        try:
            answer: object = self._sharing.share(job)
            if isinstance(answer, Share) and _is_proper(*answer):  # pyright: ignore[reportUnnecessaryIsInstance] - a plugin may answer anything
                return answer
            raise ValueError(f"it answered {answer!r}, which is not a share with a cost above 0")
        except (Exception, SystemExit):
            self.policy_failures += 1
            log.exception(
                "policy %s failed to name the share of a job; the job counts for the default share",
                name_of(self._sharing),
                extra={"job_id": job.job_id},
            )
        return ONE_SHARE

    def grant_lease(self, job_id: str, now_s: float) -> None:
        """Let the running attempt of a job live for another lease from now."""
        until = now_s + self.settings.lease_s
        grace_ends = self.started_s + self.settings.start_grace_s
        self.leases[job_id] = max(until, grace_ends)
        self.timers.add(self.leases[job_id], "lease", job_id)

    def new_job_id(self, wall_us: int) -> str:
        """Return `{microseconds}_{counter}`, unique also when the clock steps back."""
        self.last_id_us = max(wall_us, self.last_id_us + 1)
        counter = self.id_counter
        self.id_counter += 1
        return f"{self.last_id_us}_{counter}"

    def _begin(self, now: Instant) -> Transaction:
        self.state.wall_ms = now.wall_ms
        self.state.mono_s = now.mono_s
        return Transaction(self, now)

    def watch_delay(self, job: Job) -> None:
        """Add a reminder for the end of a job's delay, if it has one."""
        if job.not_before is not None and job.job_id in self.state.delayed:
            self.timers.add(self.wall_to_mono_s(job.not_before), "delay", job.job_id)

    def _watch_restored(self, job_id: str) -> None:
        """Restore the lease or the delay of a job whose change was rolled back."""
        if job_id not in self.state.jobs:
            self.leases.pop(job_id, None)
            return
        job = self.state.job(job_id)
        if job.status is not JobStatus.ASSIGNED:
            self.leases.pop(job_id, None)
            self.watch_delay(job)
        elif job_id not in self.leases:
            self.grant_lease(job_id, self.state.mono_s)

    def _load(self, snapshot: Snapshot, now: Instant) -> None:
        """Load what the store contained. Engines come first, as jobs are indexed on them."""
        state = self.state
        state.wall_ms, state.mono_s = now.wall_ms, now.mono_s
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
            self._watch_engine(engine_id, engine[0].quarantined_until)
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
            self._watch_job(job)
            if job.status in TERMINAL_STATUSES:
                ended.append((job.finished_at or job.updated_at, job_id))
        state.finished = dict.fromkeys(job_id for _, job_id in sorted(ended))
        state.queue.dirty.clear()
        state.pool.dirty.clear()
        self.last_id_us = max(self.last_id_us, floor_of(state))

    def _load_record(self, change: Change, job: Job | None = None, *, rewritten: bool) -> None:
        self.state.apply(change, None, job)
        if rewritten:
            self.normalized.append(change)

    def _watch_engine(self, engine_id: str, quarantined_until: int | None) -> None:
        grace_s = max(self.settings.engine_timeout_s, self.settings.start_grace_s)
        self.timers.add(self.started_s + grace_s, "engine", engine_id)
        if quarantined_until is not None:
            self.timers.add(self.wall_to_mono_s(quarantined_until), "quarantine", engine_id)

    def _watch_job(self, job: Job) -> None:
        self.last_id_us = max(self.last_id_us, created_us(job.job_id))
        if job.status is JobStatus.ASSIGNED:
            self.grant_lease(job.job_id, self.started_s)
        else:
            self.watch_delay(job)

    def wall_to_mono_s(self, wall_ms: int) -> float:
        """Return when, on the monotonic clock, the wall clock will show `wall_ms`."""
        return self.state.mono_s + (wall_ms - self.state.wall_ms) / 1000


def name_of(policy: Policy) -> str:
    """Return the name of a policy in logs: that under which it is registered, else its class's."""
    return str(getattr(policy, "name", type(policy).__name__))


def _is_proper(name: object, cost: object) -> bool:
    """Whether a share is what its type promises; a plugin may answer anything."""
    return isinstance(name, str) and isinstance(cost, int | float) and 0 < cost < 1e15
