"""Run random commands against a naive model (see `model`) of what each must do.

In addition, after every step: the invariants of the indexes, a dispatcher rebuilt from any prefix
of the changes, and batches of commands that are rolled back.

`DISTCONV_MACHINE_EXAMPLES=2000 pytest tests/core/test_machine.py` runs longer, with new seeds.
"""

import os
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import initialize, invariant, precondition, rule
from tests.core.kit import Core, audited, check_invariants, derived, empty_disk, write
from tests.core.model import ENDED, LEASE_S, Expected, Modelled, Naive

from distconv_plugins.policy_size_aware import SizeAware
from distconvd.errors import Conflict
from distconvd.model import FailureClass, JobStatus

EXAMPLES = int(os.environ.get("DISTCONV_MACHINE_EXAMPLES", "0"))
ENGINES = ("E1", "E2", "E3")
URLS = ("file:///a.mp4", "file:///b.mp4")


class Machine(Modelled):
    """See the module."""

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
        # The event of an immediate assignment to a waiting engine follows.
        self.jobs[job_id] = naive
        self.check_order(self.receive_events())

    def some(self, data: st.DataObject) -> Naive:
        """Choose a job, preferably a late one."""
        ids = sorted(self.jobs, reverse=True)
        return self.jobs[data.draw(st.sampled_from(ids[:8]), label="job")]

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel a job."""
        naive = self.some(data)
        expected_reply: Expected = "new" if naive.status not in ENDED else "conflict"
        if naive.status is JobStatus.CANCELLED:
            expected_reply = "again"
        self.expect(expected_reply, lambda: self.core.cancel(naive.job.job_id))
        if expected_reply == "new":
            if naive.status is JobStatus.ASSIGNED:
                self.end(naive, "cancelled", naive.engine, None)
            naive.status, naive.changed_ms = JobStatus.CANCELLED, self.core.wall_ms
        self.check_order(self.receive_events())

    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        """Start an ended job again."""
        naive = self.some(data)
        expected_reply: Expected = "new" if naive.status in ENDED else "conflict"
        if expected_reply == "new":
            naive.status, naive.engine, naive.url = JobStatus.PENDING, None, None
            naive.retries, naive.base = 0, naive.attempt
            naive.not_before, naive.paused, naive.error = None, False, None
            naive.changed_ms = self.core.wall_ms
        self.expect(expected_reply, lambda: self.core.restart(naive.job.job_id))
        self.check_order(self.receive_events())

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
        expected_reply: Expected = "conflict" if naive.status in ENDED else "new"
        if expected_reply == "new":
            for name, value in fields.items():
                setattr(naive, name, value)
            naive.changed_ms = self.core.wall_ms
        self.expect(expected_reply, lambda: self.core.patch(naive.job.job_id, **fields))
        self.check_order(self.receive_events())

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
        """An engine sends a heartbeat that names no jobs: all its leases are renewed."""
        self.core.beat(engine, **change)
        for job_id in self.assigned_to(engine):
            self.renew(self.jobs[job_id], self.core.mono_s)
        self.check_order(self.receive_events())

    @rule(engine=st.sampled_from(ENGINES), data=st.data())
    def name_jobs(self, engine: str, data: st.DataObject) -> None:
        """An engine names its active attempts, truly or not."""
        named: list[tuple[str, int | None]] = []
        expected: list[str] = []
        coming = 0
        for naive in {id(n): n for n in (self.some(data), self.some(data))}.values():
            attempt = data.draw(st.sampled_from([naive.attempt, naive.attempt - 1, None]))
            named.append((naive.job.job_id, attempt))
            expected_reply = naive.may_go_on(naive.attempt if attempt is None else attempt, engine)
            is_back = expected_reply == "new" and naive.status is JobStatus.PENDING
            if is_back and len(self.assigned_to(engine)) + coming >= self.slots_of(engine):
                expected_reply = "conflict"
            coming += is_back and expected_reply == "new"
            expected.append("keep" if expected_reply == "new" else "cancel")
        assert self.core.heartbeat_verdicts(engine, *named) == expected
        self.receive_resumed()
        for (job_id, _), verdict in zip(named, expected, strict=True):
            if verdict == "keep":
                self.renew(self.jobs[job_id], self.core.mono_s)
        self.check_order(self.receive_events())

    @rule(engine=st.sampled_from(ENGINES))
    def ask(self, engine: str) -> None:
        """An engine asks for work."""
        if self.entry(engine) is None:
            return
        assigned_before = self.assigned_to(engine)
        job = self.core.ask(engine)
        self.check_order(self.receive_events())
        if job is None:
            self.check_nothing_for(engine)
        else:
            assert job.status is JobStatus.ASSIGNED
            assert job.assigned_engine == engine
            assert job.job_id in assigned_before or len(assigned_before) < self.slots_of(engine)

    @rule()
    def assign_any(self) -> None:
        """A request asks for any engine."""
        job = self.core.assign_any()
        self.check_order(self.receive_events())
        if job is None:
            for engine_id in self.state.pool.engines:
                self.check_nothing_for(engine_id)

    @rule(engine=st.sampled_from(ENGINES), by=st.sampled_from([1, -1]))
    def add_waiter(self, engine: str, by: int) -> None:
        """A request of an engine waits for work, or gives up."""
        self.core.add_waiter(engine, by)
        self.check_order(self.receive_events())

    @rule(engine=st.sampled_from(ENGINES), what=st.sampled_from(["drain", "resume", "remove"]))
    def order(self, engine: str, what: str) -> None:
        """People drain, resume or remove an engine."""
        if self.entry(engine) is None:
            return
        if what == "remove":
            self.core.remove(engine)
        else:
            self.core.drain(engine, draining=what == "drain")
        self.check_order(self.receive_events())

    # ------------------------------------------------------------------ rules: reports

    def expect(self, expected_reply: Expected, call: Any) -> Any:
        """Make a call that must be accepted or refused."""
        before = {t: dict(getattr(self.state, t)) for t in ("jobs", "attempts", "engines", "meta")}
        try:
            answer = call()
        except Conflict:
            assert expected_reply == "conflict"
            after = {t: getattr(self.state, t) for t in before}
            assert after == before, "a refused report changed something"
            return None
        assert expected_reply != "conflict"
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
            expected_reply: Expected = (
                "again" if is_same and engine in (None, naive.engine) else "conflict"
            )
        else:
            expected_reply = naive.may_go_on(attempt, engine)
        self.receive_events()
        job = naive.job
        self.expect(
            expected_reply,
            lambda: self.core.complete(job, url=url, attempt=attempt, engine_id=engine),
        )
        if expected_reply == "new":
            self.receive_resumed()
            naive.engine = engine or naive.engine
            self.end(naive, "completed", naive.engine, None)
            naive.status, naive.url = JobStatus.COMPLETED, url
            naive.changed_ms = self.core.wall_ms
        self.check_order(self.receive_events())

    @rule(
        data=st.data(),
        kind=st.sampled_from([None, *FailureClass]),
        message=st.sampled_from(["broke", "burst"]),
    )
    def fail(self, data: st.DataObject, kind: FailureClass | None, message: str) -> None:
        """An attempt is reported as failed."""
        naive, attempt, engine = self.reporter(data)
        expected_reply = self.fate_of_failure(naive, attempt, engine, message)
        self.receive_events()
        job, now_ms = naive.job, self.core.wall_ms
        self.expect(
            expected_reply,
            lambda: self.core.fail(
                job, kind, message=message, attempt=attempt, engine_id=engine
            ),
        )  # fmt: skip
        if expected_reply == "new":
            self.receive_resumed()
            self.note_failure(
                naive, engine or naive.engine, kind, message, now_ms, is_fenced=attempt is not None
            )
        self.check_order(self.receive_events())

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """An engine gives a job back."""
        naive, attempt, engine = self.reporter(data)
        if attempt is None or engine is None:
            return
        was = any(
            (p.number, p.outcome, p.engine) == (attempt, "released", engine) for p in naive.past
        )
        expected_reply: Expected = "again" if was else naive.may_go_on(attempt, engine)
        self.receive_events()
        job = naive.job
        self.expect(
            expected_reply, lambda: self.core.release(job, attempt=attempt, engine_id=engine)
        )
        if expected_reply == "new":
            self.receive_resumed()
            times = sum(p.outcome == "released" for p in naive.since_restart())
            self.end(naive, "released", naive.engine, None)
            self.requeue(naive, self.core.wall_ms, is_over=False)
            naive.wait(self.core.wall_ms, times)
        self.check_order(self.receive_events())

    @rule(data=st.data())
    def progress(self, data: st.DataObject) -> None:
        """An engine reports its progress."""
        naive, attempt, engine = self.reporter(data)
        if attempt is None:
            return
        expected_reply = naive.may_go_on(attempt, engine)
        if expected_reply == "new" and naive.status is JobStatus.PENDING:
            back = naive.past[-1].engine or ""
            if len(self.assigned_to(back)) >= self.slots_of(back):
                expected_reply = "conflict"
        self.receive_events()
        job = naive.job
        self.expect(
            expected_reply, lambda: self.core.progress(job, attempt=attempt, engine_id=engine)
        )
        if expected_reply == "new":
            self.receive_resumed()
            self.renew(naive, self.core.mono_s)
        self.check_order(self.receive_events())

    # ------------------------------------------------------------------ rules: time and faults

    @rule(seconds=st.sampled_from([0.0, 1.0, 6.0, 16.0, 31.0, 61.0, 130.0]))
    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.receive_events()
        self.core.sleep(seconds)
        self.receive_events()
        for naive in self.jobs.values():
            if naive.status is JobStatus.ASSIGNED:
                assert naive.lease_s > self.core.mono_s - 0.01
        self.check_order([])

    @rule()
    def reload(self) -> None:
        """The daemon restarts: running attempts go on, with grace."""
        self.receive_events()
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
        self.receive_events()
        before = derived(self.core.loaded())
        rollbacks = [
            rollback_changes
            for _ in range(count)
            if (rollback_changes := self.decide_something(data)) is not None
        ]
        for rollback_changes in reversed(rollbacks):
            self.core.dispatcher.rollback(rollback_changes)
        assert derived(self.core.dispatcher) == before
        check_invariants(self.core.dispatcher, over_slots_ok=True)
        assert self.core.disk["jobs"] == self.state.jobs
        for job_id, until_s in self.core.dispatcher.state.runtime.leases.items():
            # What was rolled back may have renewed a lease, but never shortened one.
            assert until_s >= min(self.jobs[job_id].lease_s, self.core.mono_s + LEASE_S) - 0.01
            self.jobs[job_id].lease_s = until_s
        # The next call serves the waiting engines with what was requeued.
        self.sleep(0.0)

    def decide_something(self, data: st.DataObject) -> Any:
        """Decide a random command; return its rollback, or None if it was refused."""
        from distconvd.dispatch import assign, engines, expiry, reports, submit
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
            "fail the attempt": (
                reports.fail,
                job_id,
                FailReport("no", job.attempt, job.assigned_engine, FailureClass.ENGINE),
            ),
            "beat": (engines.heartbeat, Heartbeat(engine, tags=["new"], slots=3), {}),
            "remove": (engines.remove, engine),
            "expire": (expiry.expire_due,),
        }
        name = data.draw(st.sampled_from(sorted(commands)), label="command")
        command, *args = commands[name]
        try:
            return self.core.decide(command, *args).rollback_changes
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
    max_examples=EXAMPLES or 60,
    stateful_step_count=40,
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
TestMachine = Machine.TestCase
TestMachine.settings = settings.get_profile("core")
