"""A machine of random commands, against a naive model of what each must do.

The model knows nothing of queues, pools or timers: it keeps lists, predicts every report's fate from
the protocol's rules, and checks each assignment and each lost lease as it is told. Beside it, after
every step: the invariants of the indexes, a dispatcher rebuilt from any prefix of the changes, and
batches of commands that are taken back.

`DISTCONV_MACHINE_EXAMPLES=2000 pytest tests/core/test_machine.py` runs longer, with new seeds.
"""

import os
from dataclasses import dataclass, field
from typing import Any, Literal

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.core.kit import Core, audited, check_invariants, derived, empty_disk, write

from distconv_plugins.policy_size_aware import SizeAware
from distconvd.dispatch import Event
from distconvd.errors import Conflict
from distconvd.model import FailureClass, Job, JobStatus, canonical_codec
from distconvd.policy import Hold, IdleEngines, Place
from distconvd.records import decode_job

EXAMPLES = int(os.environ.get("DISTCONV_MACHINE_EXAMPLES", "0"))
LEASE_S, GRACE_S, ELSEWHERE_S = 60.0, 45.0, 50.0
LOST_MAX, TRANSIENT_MAX, QUARANTINE_AFTER = 3, 2, 3
ENGINES = ("E1", "E2", "E3")
BACK = "its engine is back"
ENDED = (JobStatus.COMPLETED, JobStatus.FAILED_PERMANENTLY, JobStatus.CANCELLED)
URLS = ("file:///a.mp4", "file:///b.mp4")
Fate = Literal["new", "again", "conflict"]


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

    def failed_on(self) -> set[str | None]:
        """The engines that it should not go back to at once."""
        return {
            p.engine
            for p in self.past
            if p.number > self.base and p.outcome in ("failed", "lost") and p.engine
        }

    def may_go_on(self, attempt: int | None, engine: str | None) -> Fate:
        """Judge a report that is not a repetition, apart from slots."""
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
            return "conflict"  # the engine gave it up itself: its first word counts
        return "new" if is_back and engine in (None, last and last.engine) else "conflict"


class Watchful:
    """The default policy, with a look at what it is shown."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.real = SizeAware()

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        """Check the question, then let the real one answer."""
        shown = list(engines)
        assert shown
        assert job.status is JobStatus.PENDING
        assert not job.paused
        for info in shown:
            self.machine.check_can_take(job, info.engine_id)
            assert info.held < info.slots
        return self.real.place(job, engines, now_ms)


class Machine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core(
            policy=Watchful(self),
            lease_s=LEASE_S,
            start_grace_s=GRACE_S,
            retry_elsewhere_s=ELSEWHERE_S,
            lost_attempts_max=LOST_MAX,
            transient_attempts_max=TRANSIENT_MAX,
            quarantine_after=QUARANTINE_AFTER,
            quarantine_s=120.0,
        )
        self.jobs: dict[str, Naive] = {}
        self.heard = 0
        self.started_s = self.core.mono_s

    # ------------------------------------------------------------------ the model's side

    @property
    def state(self) -> Any:
        """The dispatcher's state."""
        return self.core.dispatcher.state

    def entry(self, engine_id: str) -> Any:
        """The dispatcher's entry of an engine."""
        return self.state.pool.engines.get(engine_id)

    def held_by(self, engine_id: str) -> list[str]:
        """Ids of the jobs that an engine holds, as the model has it."""
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

    def is_shunned(self, naive: Naive, engine_id: str) -> bool:
        """Whether a retry should wait for another engine than this one."""
        failed = naive.failed_on()
        if engine_id not in failed:
            return False
        since = max(naive.changed_ms, naive.not_before or 0)
        if (self.core.wall_ms - since) / 1000 > ELSEWHERE_S:
            return False
        return any(
            e.ability.can_take(self.demand(naive)) and e.live and i not in failed
            for i, e in self.state.pool.engines.items()
        )

    def demand(self, naive: Naive) -> Any:
        """What a job needs of an engine."""
        from distconvd.matching import demand_of

        return demand_of(naive.job)

    def hear(self) -> list[str]:
        """Take in what was told since the last time; return the jobs that were assigned."""
        assigned: list[str] = []
        for event in self.core.events[self.heard :]:
            if event.job_id is not None and event.job_id in self.jobs:
                naive = self.jobs[event.job_id]
                if event.kind == "job.assigned":
                    self.hear_assigned(naive, event)
                    assigned.append(event.job_id)
                elif event.kind in ("job.requeued", "job.failed") and event.record is not None:
                    told = decode_job(event.record)
                    if told.error_class is FailureClass.LOST:
                        self.hear_lost(naive, event, told)
        self.heard = len(self.core.events)
        return assigned

    def hear_assigned(self, naive: Naive, event: Event) -> None:
        """Check an assignment: to an engine that may have it, under a new number or its own."""
        assert naive.status is JobStatus.PENDING
        assert event.record is not None
        told = decode_job(event.record)
        assert event.engine_id is not None
        is_back = event.reason == BACK
        if is_back:
            assert naive.past[-1].outcome == "lost"
            assert naive.past.pop().engine == event.engine_id
            assert told.attempt == naive.attempt
        else:
            assert not naive.paused
            assert naive.not_before is None or naive.not_before <= event.at_ms
            assert told.attempt == naive.attempt + 1
            self.check_can_take(naive.job, event.engine_id)
        naive.status, naive.engine = JobStatus.ASSIGNED, event.engine_id
        naive.attempt, naive.not_before = told.attempt, None
        naive.changed_ms = event.at_ms
        self.renew(naive, self.core.mono_s - (self.core.wall_ms - event.at_ms) / 1000)
        assert len(self.held_by(event.engine_id)) <= max(self.entry_slots(event.engine_id), 1)

    def entry_slots(self, engine_id: str) -> int:
        """An engine's slots; one that was removed has any number."""
        entry = self.entry(engine_id)
        return 99 if entry is None else entry.record.slots

    def renew(self, naive: Naive, now_s: float) -> None:
        """Let the attempt live for another lease."""
        naive.lease_s = max(now_s + LEASE_S, self.started_s + GRACE_S)

    def hear_lost(self, naive: Naive, event: Event, told: Job) -> None:
        """Check a lost attempt: its time was up, or its engine was removed; no retry charged."""
        if naive.status is not JobStatus.ASSIGNED:
            return
        at_s = self.core.mono_s - (self.core.wall_ms - event.at_ms) / 1000
        was_removed = "was removed" in (told.error_message or "")
        assert was_removed or abs(at_s - naive.lease_s) < 0.01, (at_s, naive.lease_s)
        lost = 1 + sum(p.outcome == "lost" and p.number > naive.base for p in naive.past)
        assert (event.kind == "job.failed") == (lost >= LOST_MAX)
        assert told.retries == naive.retries
        self.end(naive, "lost", naive.engine, told.error_message)
        self.requeue(naive, event.at_ms, is_over=lost >= LOST_MAX)
        naive.error = told.error_message
        naive.not_before = None

    def end(self, naive: Naive, outcome: str, engine: str | None, message: str | None) -> Past:
        """Note how the running attempt ended."""
        past = Past(naive.attempt, engine, outcome, message)
        naive.past.append(past)
        return past

    def requeue(self, naive: Naive, at_ms: int, *, is_over: bool) -> None:
        """Put a job back into line, or end it."""
        naive.status = JobStatus.FAILED_PERMANENTLY if is_over else JobStatus.PENDING
        if not is_over:
            naive.engine = None
        naive.past[-1].requeued = not is_over
        naive.changed_ms = at_ms

    def check_order(self, assigned: list[str]) -> None:
        """Assert that nobody was overtaken, and that no job waits beside an engine that waits."""
        waiting = [i for i in self.jobs if i in self.state.queue]
        for taken in assigned:
            first = self.jobs[taken]
            if first.status is not JobStatus.ASSIGNED or (
                first.past and (first.past[-1].number == first.attempt)
            ):
                continue
            for other in waiting:
                second = self.jobs[other]
                if self.demand(first) != self.demand(second) or second.failed_on():
                    continue
                assert (-first.priority, taken) < (-second.priority, other)
        for engine_id, entry in self.state.pool.engines.items():
            if entry.parked:
                self.check_nothing_for(engine_id)

    def check_nothing_for(self, engine_id: str) -> None:
        """Assert that no job in line could go to this engine."""
        entry = self.entry(engine_id)
        if not self.state.pool.is_offered(engine_id):
            return
        for job_id, naive in self.jobs.items():
            if job_id in self.state.queue and entry.ability.can_take(self.demand(naive)):
                no_benchmark = entry.benchmark_s(self.demand(naive).codec) is None
                assert no_benchmark or self.is_shunned(naive, engine_id), (job_id, engine_id)

    # ------------------------------------------------------------------ rules: people

    @initialize()
    def begin(self) -> None:
        """Two engines and a job, so that short runs meet something."""
        self.core.engine("E1", 10.0, slots=1, tags=["gpu"])
        self.core.engine("E2", 20.0, slots=2, supported_codecs=["h264", "hevc"])
        self.submit(60.0, "h264", 0, 1, [], None)

    @rule(
        size=st.sampled_from([10.0, 60.0, 200.0]),
        codec=st.sampled_from(["h264", "h265", "libx265"]),
        priority=st.sampled_from([0, 0, 1, 2]),
        retries=st.sampled_from([0, 1, 2]),
        requires=st.sampled_from([[], [], ["gpu"]]),
        delay_s=st.sampled_from([None, None, 30]),
    )
    def submit(
        self, size: float, codec: str, priority: int, retries: int, requires: list[str],
        delay_s: int | None,
    ) -> None:  # fmt: skip
        """Submit a job."""
        not_before = None if delay_s is None else self.core.wall_ms + delay_s * 1000
        job_id = self.core.submit(
            size, codec, priority=priority, max_retries=retries, requires=requires,
            not_before=not_before,
        )  # fmt: skip
        assert job_id not in self.jobs
        naive = Naive(self.core.job(job_id), priority=priority, not_before=not_before)
        naive.changed_ms = self.core.wall_ms
        # What was assigned to a parked engine at once is told right behind.
        self.jobs[job_id] = naive
        self.check_order(self.hear())

    def some(self, data: st.DataObject) -> Naive:
        """Choose a job; the later ones rather."""
        ids = sorted(self.jobs, reverse=True)
        return self.jobs[data.draw(st.sampled_from(ids[:8]), label="job")]

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel a job."""
        naive = self.some(data)
        fate: Fate = "new" if naive.status not in ENDED else "conflict"
        if naive.status is JobStatus.CANCELLED:
            fate = "again"
        self.expect(fate, lambda: self.core.cancel(naive.job.job_id))
        if fate == "new":
            if naive.status is JobStatus.ASSIGNED:
                self.end(naive, "cancelled", naive.engine, None)
            naive.status, naive.changed_ms = JobStatus.CANCELLED, self.core.wall_ms
        self.check_order(self.hear())

    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        """Start an ended job again."""
        naive = self.some(data)
        fate: Fate = "new" if naive.status in ENDED else "conflict"
        if fate == "new":
            naive.status, naive.engine, naive.url = JobStatus.PENDING, None, None
            naive.retries, naive.base = 0, naive.attempt
            naive.not_before, naive.paused, naive.error = None, False, None
            naive.changed_ms = self.core.wall_ms
        self.expect(fate, lambda: self.core.restart(naive.job.job_id))
        self.check_order(self.hear())

    @rule(
        data=st.data(),
        change=st.sampled_from(
            [{"priority": 2}, {"priority": 0}, {"paused": True}, {"paused": False}, {"delay": 40}]
        ),
    )
    def patch(self, data: st.DataObject, change: dict[str, Any]) -> None:
        """Change a job that has not ended."""
        naive = self.some(data)
        fields = dict(change)
        if "delay" in fields:
            fields = {"not_before": self.core.wall_ms + 1000 * fields["delay"]}
        fate: Fate = "conflict" if naive.status in ENDED else "new"
        if fate == "new":
            for name, value in fields.items():
                setattr(naive, name, value)
            naive.changed_ms = self.core.wall_ms
        self.expect(fate, lambda: self.core.patch(naive.job.job_id, **fields))
        self.check_order(self.hear())

    # ------------------------------------------------------------------ rules: engines

    @rule(
        engine=st.sampled_from(ENGINES),
        change=st.sampled_from(
            [{}, {}, {"status": "busy"}, {"status": "idle"}, {"slots": 2}, {"tags": ["gpu"]},
             {"benchmark_time": 5.0}, {"benchmark_time": None}, {"streaming_support": True},
             {"supported_codecs": []}, {"supported_codecs": ["hevc", "h264"]},
             {"benchmarks": {"hevc": 3.0}}]
        ),
    )  # fmt: skip
    def beat(self, engine: str, change: dict[str, Any]) -> None:
        """Hear from an engine that names nothing: all that it holds is renewed."""
        self.core.beat(engine, **change)
        for job_id in self.held_by(engine):
            self.renew(self.jobs[job_id], self.core.mono_s)
        self.check_order(self.hear())

    @rule(engine=st.sampled_from(ENGINES), data=st.data())
    def name_jobs(self, engine: str, data: st.DataObject) -> None:
        """Hear from an engine which attempts it holds, truly or not."""
        named: list[tuple[str, int | None]] = []
        expected: list[str] = []
        coming = 0
        for naive in {id(n): n for n in (self.some(data), self.some(data))}.values():
            attempt = data.draw(st.sampled_from([naive.attempt, naive.attempt - 1, None]))
            named.append((naive.job.job_id, attempt))
            fate = naive.may_go_on(naive.attempt if attempt is None else attempt, engine)
            is_back = fate == "new" and naive.status is JobStatus.PENDING
            if is_back and len(self.held_by(engine)) + coming >= self.slots_of(engine):
                fate = "conflict"
            coming += is_back and fate == "new"
            expected.append("keep" if fate == "new" else "cancel")
        assert self.core.holds(engine, *named) == expected
        self.hear_back()
        for (job_id, _), verdict in zip(named, expected, strict=True):
            if verdict == "keep":
                self.renew(self.jobs[job_id], self.core.mono_s)
        self.check_order(self.hear())

    def hear_back(self) -> None:
        """Take in which attempts were given back to their engines, before anything else."""
        new = self.core.events[self.heard :]
        back = [e for e in new if e.reason == BACK]
        for event in back:
            self.hear_assigned(self.jobs[event.job_id or ""], event)
        self.core.events[self.heard :] = [e for e in new if e.reason != BACK]

    def slots_of(self, engine_id: str) -> int:
        """An engine's slots, 1 before it registers."""
        entry = self.entry(engine_id)
        return 1 if entry is None else entry.record.slots

    @rule(engine=st.sampled_from(ENGINES))
    def ask(self, engine: str) -> None:
        """An engine asks for work."""
        if self.entry(engine) is None:
            return
        held_before = self.held_by(engine)
        job = self.core.ask(engine)
        self.check_order(self.hear())
        if job is None:
            self.check_nothing_for(engine)
        else:
            assert job.status is JobStatus.ASSIGNED
            assert job.assigned_engine == engine
            assert job.job_id in held_before or len(held_before) < self.slots_of(engine)

    @rule()
    def assign_any(self) -> None:
        """Somebody asks for any engine."""
        job = self.core.assign_any()
        self.check_order(self.hear())
        if job is None:
            for engine_id in self.state.pool.engines:
                self.check_nothing_for(engine_id)

    @rule(engine=st.sampled_from(ENGINES), by=st.sampled_from([1, -1]))
    def park(self, engine: str, by: int) -> None:
        """A request of an engine waits for work, or gives up."""
        self.core.park(engine, by)
        self.check_order(self.hear())

    @rule(engine=st.sampled_from(ENGINES), what=st.sampled_from(["drain", "resume", "remove"]))
    def order(self, engine: str, what: str) -> None:
        """People drain, resume or remove an engine."""
        if self.entry(engine) is None:
            return
        if what == "remove":
            self.core.remove(engine)
        else:
            self.core.drain(engine, draining=what == "drain")
        self.check_order(self.hear())

    # ------------------------------------------------------------------ rules: reports

    def expect(self, fate: Fate, call: Any) -> Any:
        """Make a call that must be accepted or refused."""
        before = {t: dict(getattr(self.state, t)) for t in ("jobs", "attempts", "engines", "meta")}
        try:
            answer = call()
        except Conflict:
            assert fate == "conflict"
            after = {t: getattr(self.state, t) for t in before}
            assert after == before, "a refused report changed something"
            return None
        assert fate != "conflict"
        return answer

    def reporter(self, data: st.DataObject) -> tuple[Naive, int | None, str | None]:
        """Choose a job, an attempt and an engine: the right ones as often as not."""
        naive = self.some(data)
        last = naive.past[-1].engine if naive.past else None
        right = (naive.attempt, naive.engine or last or "E1")
        if data.draw(st.booleans(), label="right"):
            return naive, *right
        attempt = data.draw(st.sampled_from([naive.attempt, naive.attempt - 1, None, 99]))
        engine = data.draw(st.sampled_from([*ENGINES, None]))
        return naive, attempt, engine

    @rule(data=st.data(), url=st.sampled_from(URLS))
    def complete(self, data: st.DataObject, url: str) -> None:
        """A job is reported as done."""
        naive, attempt, engine = self.reporter(data)
        if naive.status is JobStatus.COMPLETED:
            is_same = attempt in (None, naive.attempt) and url == naive.url
            fate: Fate = "again" if is_same and engine in (None, naive.engine) else "conflict"
        else:
            fate = naive.may_go_on(attempt, engine)
        self.hear()
        job = naive.job
        self.expect(
            fate, lambda: self.core.complete(job, url=url, attempt=attempt, engine_id=engine)
        )
        if fate == "new":
            self.hear_back()
            naive.engine = engine or naive.engine
            self.end(naive, "completed", naive.engine, None)
            naive.status, naive.url = JobStatus.COMPLETED, url
            naive.changed_ms = self.core.wall_ms
        self.check_order(self.hear())

    @rule(
        data=st.data(),
        kind=st.sampled_from([None, *FailureClass]),
        message=st.sampled_from(["broke", "burst"]),
    )
    def fail(self, data: st.DataObject, kind: FailureClass | None, message: str) -> None:
        """An attempt is reported as failed."""
        naive, attempt, engine = self.reporter(data)
        fate = self.fate_of_failure(naive, attempt, engine, message)
        self.hear()
        job, now_ms = naive.job, self.core.wall_ms
        self.expect(
            fate,
            lambda: self.core.fail(
                job, kind, message=message, attempt=attempt, engine_id=engine
            ),
        )  # fmt: skip
        if fate == "new":
            self.hear_back()
            self.note_failure(
                naive, engine or naive.engine, kind, message, now_ms, is_fenced=attempt is not None
            )
        self.check_order(self.hear())

    def fate_of_failure(
        self, naive: Naive, attempt: int | None, engine: str | None, message: str
    ) -> Fate:
        """Predict what becomes of a failure report."""
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
        since = [p for p in naive.past if p.number > naive.base]
        if kind is FailureClass.LOST and is_fenced:
            lost = 1 + sum(p.outcome == "lost" for p in since)
            self.end(naive, "lost", engine, message).kind = kind
            self.requeue(naive, now_ms, is_over=lost >= LOST_MAX)
            naive.error = self.state.job(naive.job.job_id).error_message
            naive.not_before = None
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
            wait_s = min(5.0 * 2.0 ** (earlier - 1), 600.0) if earlier else None
            naive.not_before = None if wait_s is None else now_ms + int(wait_s * 1000)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """An engine gives a job back."""
        naive, attempt, engine = self.reporter(data)
        if attempt is None or engine is None:
            return
        was = any(
            (p.number, p.outcome, p.engine) == (attempt, "released", engine) for p in naive.past
        )
        fate: Fate = "again" if was else naive.may_go_on(attempt, engine)
        self.hear()
        job = naive.job
        self.expect(fate, lambda: self.core.release(job, attempt=attempt, engine_id=engine))
        if fate == "new":
            self.hear_back()
            self.end(naive, "released", naive.engine, None)
            self.requeue(naive, self.core.wall_ms, is_over=False)
        self.check_order(self.hear())

    @rule(data=st.data())
    def progress(self, data: st.DataObject) -> None:
        """An engine tells how far it is."""
        naive, attempt, engine = self.reporter(data)
        if attempt is None:
            return
        fate = naive.may_go_on(attempt, engine)
        if fate == "new" and naive.status is JobStatus.PENDING:
            back = naive.past[-1].engine or ""
            if len(self.held_by(back)) >= self.slots_of(back):
                fate = "conflict"
        self.hear()
        job = naive.job
        self.expect(fate, lambda: self.core.progress(job, attempt=attempt, engine_id=engine))
        if fate == "new":
            self.hear_back()
            self.renew(naive, self.core.mono_s)
        self.check_order(self.hear())

    # ------------------------------------------------------------------ rules: time and faults

    @rule(seconds=st.sampled_from([0.0, 1.0, 6.0, 16.0, 31.0, 61.0, 130.0]))
    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.hear()
        self.core.sleep(seconds)
        self.hear()
        for naive in self.jobs.values():
            if naive.status is JobStatus.ASSIGNED:
                assert naive.lease_s > self.core.mono_s - 0.01
        self.check_order([])

    @rule()
    def reload(self) -> None:
        """The daemon restarts: running attempts go on, with grace."""
        self.hear()
        self.core.reload()
        self.started_s = self.core.mono_s
        for naive in self.jobs.values():
            if naive.status is JobStatus.ASSIGNED:
                self.renew(naive, self.core.mono_s)

    @precondition(lambda self: self.core.decisions)
    @rule(data=st.data())
    def crash_at_any_change(self, data: st.DataObject) -> None:
        """What any prefix of the changes leaves on disk makes a sound dispatcher."""
        changes = [c for d in self.core.decisions for c in d.changes]
        kept = data.draw(st.integers(0, len(changes)), label="changes kept")
        disk = empty_disk()
        write(disk, changes[:kept])
        policy = SizeAware()
        rebuilt = Core(policy=policy, disk=disk, wall_ms=self.core.wall_ms, lease_s=LEASE_S)
        check_invariants(rebuilt.dispatcher)

    @rule(data=st.data(), count=st.integers(1, 4))
    def fail_a_commit(self, data: st.DataObject, count: int) -> None:
        """Several decisions that could not be made durable leave no trace."""
        self.hear()
        before = derived(self.core.loaded())
        undos = [undo for _ in range(count) if (undo := self.decide_something(data)) is not None]
        for undo in reversed(undos):
            self.core.dispatcher.take_back(undo)
        assert derived(self.core.dispatcher) == before
        check_invariants(self.core.dispatcher, over_slots_ok=True)
        assert self.core.disk["jobs"] == self.state.jobs
        for job_id, until_s in self.core.dispatcher.leases.items():
            # A lease may have been renewed by what was taken back, but never be cut short.
            assert until_s >= min(self.jobs[job_id].lease_s, self.core.mono_s + LEASE_S) - 0.01
            self.jobs[job_id].lease_s = until_s
        # The next tick serves engines that wait with what came back into line.
        self.sleep(0.0)

    def decide_something(self, data: st.DataObject) -> Any:
        """Decide a random command; return how to take it back, None where it was refused."""
        from distconvd.dispatch import assign, clock, engines, reports, submit
        from distconvd.model import CompleteReport, FailReport, Heartbeat, JobPatch, Submission

        naive = self.some(data)
        engine = data.draw(st.sampled_from([e for e in ENGINES if self.entry(e)] or ["E1"]))
        job_id, job = naive.job.job_id, self.state.job(naive.job.job_id)
        commands: dict[str, tuple[Any, ...]] = {
            "submit": (submit.submit, Submission("http://x/y", "h264", 60.0), None),
            "ask": (assign.ask, engine),
            "any": (assign.assign_any,),
            "cancel": (submit.cancel, job_id),
            "restart": (submit.restart, job_id),
            "patch": (submit.patch, job_id, JobPatch(priority=1, paused=True)),
            "complete": (reports.complete, job_id, CompleteReport(URLS[0], job.attempt)),
            "fail": (reports.fail, job_id, FailReport("no", None, engine)),
            "blame": (
                reports.fail,
                job_id,
                FailReport("no", job.attempt, job.assigned_engine, FailureClass.ENGINE),
            ),
            "beat": (engines.heartbeat, Heartbeat(engine, tags=["new"], slots=3), {}),
            "remove": (engines.remove, engine),
            "tick": (clock.tick,),
        }
        name = data.draw(st.sampled_from(sorted(commands)), label="command")
        command, *args = commands[name]
        try:
            return self.core.decide(command, *args).undo
        except (Conflict, LookupError):
            return None
        except Exception as error:
            if type(error).__name__ == "NotFound":
                return None
            raise

    # ------------------------------------------------------------------ after every step

    @invariant()
    def sound(self) -> None:
        """The indexes agree with the records, and an audit of the disk finds nothing."""
        check_invariants(self.core.dispatcher, over_slots_ok=True)
        assert audited(self.core.disk, over_slots_ok=True) == []

    @invariant()
    def as_modelled(self) -> None:
        """Every job is where the model has it."""
        for job_id, naive in self.jobs.items():
            job = self.state.job(job_id)
            seen = (job.status, job.assigned_engine, job.attempt, job.retries, job.not_before)
            model = (naive.status, naive.engine, naive.attempt, naive.retries, naive.not_before)
            assert seen[:4] == model[:4], job_id
            assert job.status in ENDED or seen == model, job_id
            assert job.retries <= job.max_retries
            history = [
                (a.number, a.engine_id, a.outcome.value)
                for a in self.state.history(job_id).attempts
            ]
            assert history == [(p.number, p.engine, p.outcome) for p in naive.past]


settings.register_profile(
    "core",
    max_examples=EXAMPLES or int(os.environ.get("DEV", "60")),
    stateful_step_count=40,
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
TestMachine = Machine.TestCase
TestMachine.settings = settings.get_profile("core")
