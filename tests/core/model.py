"""Predict naively what each command must do, without queues, pools or timers.

The model keeps lists, predicts the answer to every report from the protocol's rules, and checks
each assignment and each lost lease by its event. The commands come from `test_machine`.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from hypothesis.stateful import RuleBasedStateMachine
from tests.core.kit import Core

from distconv_plugins.policy_size_aware import SizeAware
from distconvd.dispatch import Event
from distconvd.dispatch.matching import requirements_of
from distconvd.dispatch.records import decode_job
from distconvd.model import FailureClass, Job, JobStatus, canonical_codec
from distconvd.policy import Hold, IdleEngines, Place

LEASE_S, GRACE_S, RETRY_ELSEWHERE_S = 60.0, 45.0, 50.0
BACKOFF_S, BACKOFF_MAX_S = 5.0, 600.0
LOST_MAX, TRANSIENT_MAX, QUARANTINE_AFTER = 3, 2, 3
BACK = "its engine is back"
ENDED = (JobStatus.COMPLETED, JobStatus.FAILED_PERMANENTLY, JobStatus.CANCELLED)
Expected = Literal["new", "again", "conflict"]


@dataclass
class Past:
    """An ended attempt."""

    number: int
    engine: str | None
    outcome: str
    message: str | None = None
    kind: FailureClass | None = None
    requeued: bool = False


@dataclass
class Naive:
    """What the model knows of one job."""

    job: Job
    status: JobStatus = JobStatus.PENDING
    engine: str | None = None
    attempt: int = 0
    base: int = 0
    retries: int = 0
    not_before: int | None = None
    paused: bool = False
    priority: int = 0
    url: str | None = None
    error: str | None = None
    lease_s: float = 0.0
    changed_ms: int = 0
    past: list[Past] = field(default_factory=list[Past])

    def since_restart(self) -> list[Past]:
        """The ended attempts that count."""
        return [p for p in self.past if p.number > self.base]

    def failed_on(self) -> set[str | None]:
        """The engines that it should not go back to immediately."""
        since = self.since_restart()
        return {p.engine for p in since if p.outcome in ("failed", "lost") and p.engine}

    def wait(self, now_ms: int, times: int) -> None:
        """Let the next attempt wait, longer each time; a later `not_before` of a person counts."""
        if times:
            until = now_ms + int(1000 * min(BACKOFF_S * 2.0 ** (times - 1), BACKOFF_MAX_S))
            self.not_before = max(until, self.not_before or 0)

    def may_go_on(self, attempt: int | None, engine: str | None) -> Expected:
        """Predict the answer to a report that is not a repetition, apart from slots."""
        if self.status in ENDED:
            return "conflict"
        if attempt is None:
            return "new"
        if attempt != self.attempt:
            return "conflict"
        if self.status is JobStatus.ASSIGNED:
            return "new" if engine in (None, self.engine) else "conflict"
        last = self.past[-1] if self.past else None
        is_back = last is not None and last.number == attempt and last.outcome == "lost"
        if last is not None and last.kind is FailureClass.LOST:
            return "conflict"  # the engine reported the loss itself: the first report counts
        return "new" if is_back and engine in (None, last and last.engine) else "conflict"


class Watchful:
    """The default policy, which also checks what it is shown."""

    def __init__(self, machine: "Modelled") -> None:
        self.machine = machine
        self.real = SizeAware()

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        """Check the question, then let the default policy answer."""
        shown = list(engines)
        assert shown
        assert job.status is JobStatus.PENDING
        assert not job.paused
        for info in shown:
            self.machine.check_can_take(job, info.engine_id)
            assert info.held < info.slots
        return self.real.place(job, engines, now_ms)


class Modelled(RuleBasedStateMachine):
    """A dispatcher together with its model; the rules are in the subclass."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core(
            policy=Watchful(self),
            lease_s=LEASE_S,
            start_grace_s=GRACE_S,
            retry_elsewhere_s=RETRY_ELSEWHERE_S,
            retry_backoff_s=BACKOFF_S,
            retry_backoff_max_s=BACKOFF_MAX_S,
            lost_attempts_max=LOST_MAX,
            transient_attempts_max=TRANSIENT_MAX,
            quarantine_after=QUARANTINE_AFTER,
            quarantine_s=120.0,
        )
        self.jobs: dict[str, Naive] = {}
        self.received = 0
        self.started_s = self.core.mono_s

    @property
    def state(self) -> Any:
        """The dispatcher's state."""
        return self.core.dispatcher.state

    def entry(self, engine_id: str) -> Any:
        """The dispatcher's entry of an engine."""
        return self.state.pool.engines.get(engine_id)

    def assigned_to(self, engine_id: str) -> list[str]:
        """Ids of the jobs that are assigned to an engine, according to the model."""
        return [
            i for i, n in self.jobs.items()
            if n.status is JobStatus.ASSIGNED and n.engine == engine_id
        ]  # fmt: skip

    def check_can_take(self, job: Job, engine_id: str) -> None:
        """Assert that a job may be offered to an engine."""
        entry = self.entry(engine_id)
        record = entry.record
        assert record.status == "idle"
        assert not record.draining
        assert record.quarantined_until is None
        codecs = {canonical_codec(c) for c in record.supported_codecs}
        assert not codecs or canonical_codec(job.target_codec) in codecs
        assert set(job.requires) <= set(record.tags)

    def is_excluded(self, naive: Naive, engine_id: str) -> bool:
        """Whether a retry should wait for another engine than this one."""
        failed = naive.failed_on()
        if engine_id not in failed:
            return False
        since = max(naive.changed_ms, naive.not_before or 0)
        if (self.core.wall_ms - since) / 1000 > RETRY_ELSEWHERE_S:
            return False
        return any(
            e.ability.can_take(self.requirements(naive)) and e.may_take_jobs and i not in failed
            for i, e in self.state.pool.engines.items()
        )

    def requirements(self, naive: Naive) -> Any:
        """What a job needs of an engine."""
        return requirements_of(naive.job)

    def receive_events(self) -> list[str]:
        """Check the events since the last call; return the jobs that were assigned."""
        assigned: list[str] = []
        for event in self.core.events[self.received :]:
            if event.job_id is not None and event.job_id in self.jobs:
                naive = self.jobs[event.job_id]
                if event.kind == "job.assigned":
                    self.receive_assigned(naive, event)
                    assigned.append(event.job_id)
                elif event.kind in ("job.requeued", "job.failed") and event.record is not None:
                    lost_job = decode_job(event.record)
                    if lost_job.error_class is FailureClass.LOST:
                        self.receive_lost(naive, event, lost_job)
        self.received = len(self.core.events)
        return assigned

    def receive_resumed(self) -> None:
        """Check the attempts that were resumed on their engines, before all other events."""
        new = self.core.events[self.received :]
        back = [e for e in new if e.reason == BACK]
        for event in back:
            self.receive_assigned(self.jobs[event.job_id or ""], event)
        self.core.events[self.received :] = [e for e in new if e.reason != BACK]

    def receive_assigned(self, naive: Naive, event: Event) -> None:
        """Check an assignment: to a suitable engine, under a new number or (if resumed) its own."""
        assert naive.status is JobStatus.PENDING
        assert event.record is not None
        assigned_job = decode_job(event.record)
        assert event.engine_id is not None
        is_back = event.reason == BACK
        if is_back:
            assert naive.past[-1].outcome == "lost"
            assert naive.past.pop().engine == event.engine_id
            assert assigned_job.attempt == naive.attempt
        else:
            assert not naive.paused
            assert naive.not_before is None or naive.not_before <= event.at_ms
            assert assigned_job.attempt == naive.attempt + 1
            self.check_can_take(naive.job, event.engine_id)
        naive.status, naive.engine = JobStatus.ASSIGNED, event.engine_id
        naive.attempt, naive.not_before = assigned_job.attempt, None
        naive.changed_ms = event.at_ms
        self.renew(naive, self.core.mono_s - (self.core.wall_ms - event.at_ms) / 1000)
        assert len(self.assigned_to(event.engine_id)) <= max(self.entry_slots(event.engine_id), 1)

    def slots_of(self, engine_id: str) -> int:
        """An engine's slots, 1 before it registers."""
        entry = self.entry(engine_id)
        return 1 if entry is None else entry.record.slots

    def entry_slots(self, engine_id: str) -> int:
        """An engine's slots; one that was removed has any number."""
        entry = self.entry(engine_id)
        return 99 if entry is None else entry.record.slots

    def renew(self, naive: Naive, now_s: float) -> None:
        """Let the attempt live for another lease."""
        naive.lease_s = max(now_s + LEASE_S, self.started_s + GRACE_S)

    def receive_lost(self, naive: Naive, event: Event, lost_job: Job) -> None:
        """Check a lost attempt: its lease expired or its engine was removed; no retry is
        charged."""
        if naive.status is not JobStatus.ASSIGNED:
            return
        at_s = self.core.mono_s - (self.core.wall_ms - event.at_ms) / 1000
        was_removed = "was removed" in (lost_job.error_message or "")
        assert was_removed or abs(at_s - naive.lease_s) < 0.01, (at_s, naive.lease_s)
        lost = 1 + sum(p.outcome == "lost" for p in naive.since_restart())
        assert (event.kind == "job.failed") == (lost >= LOST_MAX)
        assert lost_job.retries == naive.retries
        self.end(naive, "lost", naive.engine, lost_job.error_message)
        self.requeue(naive, event.at_ms, is_over=lost >= LOST_MAX)
        naive.error = lost_job.error_message

    def end(self, naive: Naive, outcome: str, engine: str | None, message: str | None) -> Past:
        """Note how the running attempt ended."""
        past = Past(naive.attempt, engine, outcome, message)
        naive.past.append(past)
        return past

    def requeue(self, naive: Naive, at_ms: int, *, is_over: bool) -> None:
        """Requeue a job, or end it."""
        naive.status = JobStatus.FAILED_PERMANENTLY if is_over else JobStatus.PENDING
        if not is_over:
            naive.engine = None
        naive.past[-1].requeued = not is_over
        naive.changed_ms = at_ms

    def check_order(self, assigned: list[str]) -> None:
        """Assert that no job was overtaken, and that no job waits while an engine waits for it."""
        waiting = [i for i in self.jobs if i in self.state.queue]
        for taken in assigned:
            first = self.jobs[taken]
            if first.status is not JobStatus.ASSIGNED or (
                first.past and (first.past[-1].number == first.attempt)
            ):
                continue
            for other in waiting:
                second = self.jobs[other]
                if self.requirements(first) != self.requirements(second) or second.failed_on():
                    continue
                assert (-first.priority, taken) < (-second.priority, other)
        for engine_id, entry in self.state.pool.engines.items():
            if entry.long_polls:
                self.check_nothing_for(engine_id)

    def check_nothing_for(self, engine_id: str) -> None:
        """Assert that no job in the queue could go to this engine."""
        entry = self.entry(engine_id)
        if not self.state.pool.is_available(engine_id):
            return
        for job_id, naive in self.jobs.items():
            if job_id in self.state.queue and entry.ability.can_take(self.requirements(naive)):
                no_benchmark = entry.benchmark_s(self.requirements(naive).codec) is None
                assert no_benchmark or self.is_excluded(naive, engine_id), (job_id, engine_id)

    def fate_of_failure(
        self, naive: Naive, attempt: int | None, engine: str | None, message: str
    ) -> Expected:
        """Predict the answer to a failure report."""
        if attempt is None:
            is_same = naive.status is JobStatus.FAILED_PERMANENTLY and message == naive.error
            return "again" if is_same else naive.may_go_on(attempt, engine)
        for past in naive.past:
            is_same = past.outcome in ("failed", "lost") and past.message == message
            if is_same and past.number == attempt and engine in (None, past.engine):
                return "again"
        return naive.may_go_on(attempt, engine)

    def note_failure(
        self, naive: Naive, engine: str | None, kind: FailureClass | None, message: str,
        now_ms: int, *, is_fenced: bool,
    ) -> None:  # fmt: skip
        """Do in the model what a failure of that class must do."""
        since = naive.since_restart()
        if kind is FailureClass.LOST and is_fenced:
            lost = 1 + sum(p.outcome == "lost" for p in since)
            self.end(naive, "lost", engine, message).kind = kind
            self.requeue(naive, now_ms, is_over=lost >= LOST_MAX)
            naive.error = self.state.job(naive.job.job_id).error_message
            return
        transient = sum(p.kind is FailureClass.TRANSIENT for p in since)
        is_transient = kind is FailureClass.TRANSIENT
        charged = kind is not FailureClass.INPUT and not (
            is_transient and transient < TRANSIENT_MAX
        )
        is_over = kind is FailureClass.INPUT or (charged and naive.retries >= naive.job.max_retries)
        earlier = sum(p.outcome == "failed" for p in since) + is_transient
        self.end(naive, "failed", engine, message).kind = kind
        self.requeue(naive, now_ms, is_over=is_over)
        naive.error = message
        if not is_over:
            naive.retries += charged
            naive.wait(now_ms, earlier)
