"""Give the tests of the core a dispatcher with a manual clock, and short commands.

`Core` plays ledger and disk: every decision's changes go to `disk` immediately, so that `reload` is
a restart, and any prefix of `decisions` is what a power cut could leave.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec

from distconv_plugins.policy_size_aware import SizeAware
from distconvd.commands.audit.stored import StoredAudit
from distconvd.dispatch import (
    Decision,
    Dispatcher,
    DispatchSettings,
    Event,
    Instant,
    Refusal,
    assign,
    engines,
    expiry,
    queries,
    reports,
    submit,
)
from distconvd.dispatch.matching import JobQueue, Requirements, requirements_of
from distconvd.dispatch.matching.queue import created_us
from distconvd.dispatch.matching.requirement_queue import QueueEntry
from distconvd.dispatch.matching.requirements import index_tag
from distconvd.dispatch.matching.schedule import Schedule
from distconvd.dispatch.records import decode_job
from distconvd.dispatch.transaction import Transaction
from distconvd.dispatch.why import why
from distconvd.model import (
    Attempt,
    BenchmarkReport,
    CompleteReport,
    FailReport,
    FailureClass,
    Heartbeat,
    HeartbeatReply,
    HeldJob,
    Job,
    JobPatch,
    JobStatus,
    ProgressReport,
    ReleaseReport,
    Submission,
    Verdict,
)
from distconvd.policy import Policy
from distconvd.store import TABLES, Change, Snapshot, Table

P = ParamSpec("P")
T = TypeVar("T")

START_MS = 1_700_000_000_000
CURRENT = -999
"""As an attempt number: the one that the job has."""
URL = "http://media/video.mp4"

Disk = dict[Table, dict[str, bytes]]


def empty_disk() -> Disk:
    """Return a disk with nothing on it."""
    return {table: {} for table in TABLES}


def write(disk: Disk, changes: "list[Change] | tuple[Change, ...]") -> None:
    """Make changes durable."""
    for table, key, record in changes:
        if record is None:
            disk[table].pop(key, None)
        else:
            disk[table][key] = record


def snapshot_of(disk: Disk) -> Snapshot:
    """Return what a store would load."""
    return Snapshot(**{table: dict(disk[table]) for table in TABLES})


class Core:
    """A dispatcher, its clock and its disk."""

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        disk: Disk | None = None,
        wall_ms: int = START_MS,
        mono_s: float = 1000.0,
        **settings: Any,
    ) -> None:
        self.wall_ms, self.mono_s = wall_ms, mono_s
        self.settings = DispatchSettings(**settings)
        self.policy = policy or SizeAware()
        self.disk = disk if disk is not None else empty_disk()
        self.events: list[Event] = []
        self.decisions: list[Decision[Any]] = []
        self.dispatcher = self.loaded()

    @property
    def now(self) -> Instant:
        """The present moment."""
        return Instant(self.wall_ms, self.mono_s)

    def loaded(self) -> Dispatcher:
        """Return a dispatcher fresh from the disk."""
        fresh = Dispatcher(
            self.settings, self.policy, SizeAware(), self.now, snapshot_of(self.disk)
        )
        write(self.disk, fresh.normalized)
        return fresh

    def reload(self) -> None:
        """Restart the daemon."""
        self.dispatcher = self.loaded()

    def decide(
        self, command: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Decision[T]:
        """Decide without committing; raises what the command refuses with."""
        decision = self.dispatcher.decide(command, self.now, *args, **kwargs)
        if isinstance(decision, Refusal):
            raise decision.error
        return decision

    def run(
        self, command: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Decide and commit."""
        decision = self.decide(command, *args, **kwargs)
        write(self.disk, tuple(decision.changes))
        self.events += decision.events
        self.decisions.append(decision)
        return decision.reply

    def sleep(self, seconds: float, *, wall_step_s: float = 0.0) -> None:
        """Let time pass and expire what becomes due; the wall clock may step in addition."""
        end_s = self.mono_s + seconds
        self.wall_ms += int(wall_step_s * 1000)
        while True:
            next_s = self.run(expiry.expire_due)
            if next_s is None or next_s > end_s:
                break
            self._turn_to(max(next_s, self.mono_s + 0.001))
        if end_s > self.mono_s:
            self._turn_to(end_s)
        self.run(expiry.expire_due)

    def _turn_to(self, mono_s: float) -> None:
        self.wall_ms += round((mono_s - self.mono_s) * 1000)
        self.mono_s = mono_s

    # ------------------------------------------------------------------ short commands

    def submit(self, job_size: float = 60.0, codec: str = "h264", **fields: Any) -> str:
        """Submit a job (medium by default) and return its id."""
        key = fields.pop("key", None)
        idempotency = None if key is None else submit.IdempotencyKey(*key)
        submission = Submission(URL, codec, job_size, **fields)
        return decode_job(self.run(submit.submit, submission, idempotency)).job_id

    def engine(self, engine_id: str, benchmark_s: float | None = 10.0, **fields: Any) -> None:
        """Register an engine, or update it."""
        fields.setdefault("supported_codecs", ["h264"])
        self.beat(engine_id, benchmark_time=benchmark_s, status="idle", **fields)

    def beat(self, engine_id: str, **fields: Any) -> HeartbeatReply:
        """Send a heartbeat."""
        return self.run(engines.heartbeat, Heartbeat(engine_id, **fields), {})

    def heartbeat_verdicts(self, engine_id: str, *assigned: tuple[str, int | None]) -> list[str]:
        """Send a heartbeat that names active attempts; return the verdicts."""
        jobs = [HeldJob(job_id, attempt) for job_id, attempt in assigned]
        return [verdict.verdict for verdict in self.beat(engine_id, jobs=jobs).jobs]

    def ask(self, engine_id: str) -> Job | None:
        """Let an engine ask for work."""
        record = self.run(assign.ask, engine_id)
        return None if record is None else decode_job(record)

    def must_ask(self, engine_id: str) -> Job:
        """Let an engine ask for work; fail if it gets none."""
        job = self.ask(engine_id)
        assert job is not None, self.why_all()
        return job

    def assign_any(self) -> Job | None:
        """Assign the next job to any engine."""
        record = self.run(assign.assign_any)
        return None if record is None else decode_job(record)

    def add_waiter(self, engine_id: str, by: int = 1) -> None:
        """Let a request of the engine wait for work."""
        self.run(assign.add_waiter, engine_id, by)

    def benchmark(self, engine_id: str, seconds: float, **benchmarks: float) -> None:
        """Report a benchmark."""
        self.run(engines.benchmark, BenchmarkReport(engine_id, seconds, benchmarks))

    def complete(
        self, job: Job, *, url: str = "file:///out.mp4", attempt: int | None = CURRENT,
        engine_id: str | None = "",
    ) -> str:  # fmt: skip
        """Report a job as completed, by default by its engine and for its present attempt."""
        report = CompleteReport(url, _attempt(job, attempt), _engine(job, engine_id))
        return self.run(reports.complete, job.job_id, report)

    def fail(
        self, job: Job, kind: FailureClass | None = FailureClass.ENGINE, *,
        message: str = "it broke", attempt: int | None = CURRENT, engine_id: str | None = "",
        needs: Sequence[str] = (),
    ) -> str:  # fmt: skip
        """Report a job as failed, see `complete`."""
        report = FailReport(
            message, _attempt(job, attempt), _engine(job, engine_id), kind, needs=list(needs)
        )
        return self.run(reports.fail, job.job_id, report)

    def release(
        self, job: Job, *, attempt: int | None = CURRENT, engine_id: str | None = ""
    ) -> str:
        """Give a job back, see `complete`."""
        report = ReleaseReport(_attempt(job, attempt) or 0, _engine(job, engine_id) or "")
        return self.run(reports.release, job.job_id, report)

    def progress(
        self, job: Job, *, fraction: float = 0.5, attempt: int | None = CURRENT,
        engine_id: str | None = "",
    ) -> Verdict:  # fmt: skip
        """Report progress, see `complete`."""
        report = ProgressReport(_attempt(job, attempt) or 0, _engine(job, engine_id), fraction)
        return self.run(reports.progress, job.job_id, report)

    def patch(self, job_id: str, **fields: Any) -> Job:
        """Change a job."""
        return decode_job(self.run(submit.patch, job_id, JobPatch(**fields)))

    def cancel(self, job_id: str) -> Job:
        """Cancel a job."""
        return decode_job(self.run(submit.cancel, job_id))

    def restart(self, job_id: str) -> Job:
        """Start an ended job again."""
        return decode_job(self.run(submit.restart, job_id))

    def job(self, job_id: str) -> Job:
        """Return a job."""
        return decode_job(self.run(queries.get_job, job_id))

    def attempts(self, job_id: str) -> list[Attempt]:
        """Return the attempts of a job."""
        return self.run(queries.attempts, job_id)

    def outcomes(self, job_id: str) -> list[str]:
        """Return how the attempts of a job ended."""
        return [attempt.outcome.value for attempt in self.attempts(job_id)]

    def view(self, engine_id: str) -> dict[str, Any]:
        """Return an engine as on the wire."""
        found: dict[str, Any] = msgspec.json.decode(self.run(queries.get_engine, engine_id))
        return found

    def drain(self, engine_id: str, *, draining: bool = True) -> None:
        """Drain or resume an engine."""
        self.run(engines.drain, engine_id, draining=draining)

    def remove(self, engine_id: str) -> None:
        """Forget an engine."""
        self.run(engines.remove, engine_id)

    def why(self, job_id: str) -> str:
        """Return why a job is where it is."""
        return self.run(why, job_id).summary

    def why_all(self) -> dict[str, str]:
        """Return why each job is where it is, for messages of failed tests."""
        return {job_id: self.why(job_id) for job_id in self.dispatcher.state.jobs}

    def published_count(self, kind: str) -> int:
        """Return how often an event of this kind was published."""
        return sum(event.kind == kind for event in self.events)


def _attempt(job: Job, attempt: int | None) -> int | None:
    return job.attempt if attempt == CURRENT else attempt


def _engine(job: Job, engine_id: str | None) -> str | None:
    return job.assigned_engine if engine_id == "" else engine_id


def derived(dispatcher: Dispatcher) -> dict[str, Any]:
    """Return all that a dispatcher derives from its records, comparable with another's.

    Reservations are left out: a reserved job counts as queued, since a restart forgets them.
    """
    state = dispatcher.state
    entries = state.pool.engines.values()
    waiting = [j for j in state.order if j in state.queue or j in state.reservations]
    return {
        "records": {table: getattr(state, table) for table in TABLES},
        "order": state.order,
        "statuses": {status: n for status, n in state.statuses.items() if n},
        "waiting": waiting,
        "delayed": state.delayed,
        "finished": set(getattr(state, "finished", ())),
        "assigned": {
            engine: set(assigned) for engine, assigned in state.assigned.items() if assigned
        },
        "assigned by engine": {e.record.engine_id: set(e.assigned) for e in entries},
        "engine records": {e.record.engine_id: e.record for e in entries},
        "abilities": {e.record.engine_id: (e.ability, e.benchmarks) for e in entries},
        "leased": set(dispatcher.state.runtime.leases),
    }


def audited(disk: Disk, *, over_slots_ok: bool = False) -> list[str]:
    """Return what `distconvd audit` would find on a disk.

    `over_slots_ok`: engines may have come back with fewer slots than they have jobs.
    """
    found = StoredAudit(snapshot_of(disk), []).findings(iter(()))
    lawful = {"over-slots"} if over_slots_ok else set[str]()
    return [f"{finding}" for finding in found if finding.kind not in lawful]


def check_invariants(dispatcher: Dispatcher, *, over_slots_ok: bool = False) -> None:
    """Assert the invariants of a dispatcher, which are true at any moment."""
    state, pool = dispatcher.state, dispatcher.state.pool
    jobs = {job_id: state.job(job_id) for job_id in state.jobs}
    assert state.order == sorted(jobs)
    assert +state.statuses == Counter(job.status for job in jobs.values())
    assert set(pool.engines) == set(state.engines)
    for job_id, job in jobs.items():
        waits = [
            job_id in state.queue,
            job_id in state.delayed,
            job_id in state.reservations,
            job.paused,
        ]
        assert sum(waits) == (job.status is JobStatus.PENDING) or job.paused, (job, waits)
        assert not (job.paused and any(waits[:3]))
        assert (job_id in dispatcher.state.runtime.leases) == (job.status is JobStatus.ASSIGNED)
        assigned_to = [engine for engine, assigned in state.assigned.items() if job_id in assigned]
        is_assigned = job.status is JobStatus.ASSIGNED and job.assigned_engine is not None
        assert assigned_to == ([job.assigned_engine] if is_assigned else [])
        assert 0 <= job.retries <= max(0, job.max_retries)
        numbers = [a.number for a in state.history(job_id).attempts]
        assert numbers == sorted(numbers)
        assert not numbers or numbers[-1] <= job.attempt
    assert len(state.queue) == sum(job_id in state.queue for job_id in jobs)
    requirement_queues: dict[Requirements, list[tuple[int, int, str]]] = {}
    for job_id, job in jobs.items():
        if job_id in state.queue:
            place = (-job.priority, created_us(job_id), job_id)
            requirement_queues.setdefault(requirements_of(job), []).append(place)
    for requirements, requirement_queue in requirement_queues.items():
        assert [e.job_id for e in state.queue.in_order(requirements)] == [
            i for *_, i in sorted(requirement_queue)
        ]
    timer_keys = set(dispatcher.state.runtime.timers._at)
    assert {("delay", job_id) for job_id in state.delayed} <= timer_keys
    assert {("lease", job_id) for job_id in dispatcher.state.runtime.leases} <= timer_keys
    assert {("reservation", job_id) for job_id in state.reservations} <= timer_keys
    for engine_id, entry in pool.engines.items():
        assert entry.assigned is state.assigned[engine_id]
        assert over_slots_ok or len(entry.assigned) <= max(0, entry.record.slots)
        reserved = {j for j, engine in state.reservations.items() if engine == engine_id}
        assert set(entry.reserved) == reserved
        assert len(entry.assigned) + len(reserved) <= max(entry.record.slots, len(entry.assigned))
        assert pool.is_available(engine_id) == entry.available
        assert entry.offline or ("engine", engine_id) in timer_keys
        if entry.record.quarantined_until is not None:
            assert ("quarantine", engine_id) in timer_keys
    _check_indexes(dispatcher)


def _check_indexes(dispatcher: Dispatcher) -> None:
    pool, queue = dispatcher.state.pool, dispatcher.state.queue
    _check_queues(queue)
    assert not pool._changing
    available_engines = {i: e for i, e in pool.engines.items() if pool.is_available(i)}
    assert pool.abilities == Counter(e.ability for e in available_engines.values())
    assert pool.long_polls == sum(e.long_polls > 0 for e in available_engines.values())
    for requirements, index in pool._indexes.items():
        members = {i: e for i, e in available_engines.items() if e.ability.can_take(requirements)}
        assert index.members == members
        assert set(index.long_polls) == {i for i, e in members.items() if e.long_polls}
        ranked = [(e.benchmark_s(requirements.codec), i, e) for i, e in members.items()]
        known = sorted((s, i) for s, i, _ in ranked if s is not None)
        assert index.ranked == known
        streaming = sorted(
            (s, i) for s, i, e in ranked if s is not None and e.record.streaming_support
        )
        assert index.ranked_streaming == streaming


def _check_queues(queue: JobQueue) -> None:
    """Assert that each queue is found under a lower bound of its front, and each job in its heaps."""
    scheduled: list[Requirements] = []
    for tag, schedule in queue.fronts._schedules.items():
        assert all(index_tag(requirements) == tag for requirements in schedule._keys)
        _check_schedule(schedule)
        scheduled += schedule._keys
    assert set(scheduled) == set(queue._requirement_queues)
    indexed = [r for by_tag in queue.fronts._by_codec.values() for s in by_tag.values() for r in s]
    assert Counter(indexed) == Counter(queue._requirement_queues.keys())
    entries: list[QueueEntry] = []
    for requirements, requirement_queue in queue._requirement_queues.items():
        assert requirement_queue.requirements == requirements
        share_queues = requirement_queue.share_queues
        assert share_queues
        schedule_of_shares = requirement_queue._schedule
        assert (schedule_of_shares is None) == (len(share_queues) == 1)
        if schedule_of_shares is not None:
            assert set(schedule_of_shares._keys) == set(share_queues.values())
            _check_schedule(schedule_of_shares)
        for share, share_queue in share_queues.items():
            assert (share_queue.share, share_queue.requirement_queue) == (share, requirement_queue)
            entries += (found := list(share_queue.entries))
            assert found
            assert all(entry.share_queue is share_queue for entry in found)
            assert share_queue.entries.first() == min(found)
    by_age = [entry for heap in queue.oldest_pending._heaps.values() for entry in heap]
    assert sorted(entries) == sorted(by_age) == sorted(queue._current.values())


def _check_schedule(schedule: Schedule[Any]) -> None:
    """Assert that each queue has one valid key, which is not above its front."""
    assert sorted(schedule._heap) == sorted(schedule._keys.values())
    for queue, (bound, named) in schedule._keys.items():
        front = schedule._front_of(queue)
        assert named is queue
        assert front is not None
        assert bound <= front


def seeded(seed: int) -> random.Random:
    """Return a random generator whose seed a failing test can name."""
    return random.Random(seed)
