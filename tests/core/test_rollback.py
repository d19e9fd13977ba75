"""Check that the rollback of any command leaves the state as if it had never run.

Compared with a dispatcher freshly loaded from the records before it: records, queues, assigned
jobs, counts, order, delays, leases. Then the same command must do the same again.
"""

from collections.abc import Callable
from typing import Any

import pytest
from tests.core.kit import Core, check_invariants, derived

from distconvd.dispatch import assign, engines, expiry, reports, retire, submit
from distconvd.dispatch.submit import IdempotencyKey
from distconvd.errors import DistconvError
from distconvd.model import (
    BenchmarkReport,
    CompleteReport,
    FailReport,
    FailureClass,
    Heartbeat,
    HeldJob,
    JobPatch,
    JobStatus,
    ReleaseReport,
    Submission,
)

SUBMISSION = Submission("http://a/b", "h264", 60.0)
FUTURE = JobPatch(not_before=2**50)


def scene() -> Core:
    """Return a busy little world, with one job in each state: see `JOBS`."""
    core = Core(idempotency_keys_max=2, quarantine_after=1, finished_jobs_max=0)
    core.engine("E1", 5.0, slots=3, tags=["gpu"])
    core.engine("E2", 50.0, slots=1)
    for name in ("done", "failed", "cancelled", "lost", "assigned"):
        job_id = core.submit(60.0, labels={"name": name}, key=(name, "d"), max_retries=0)
        if name == "lost":
            core.beat("E2")
            lost = core.submit(1.0, labels={"name": "gone"})
            core.must_ask("E2")
            core.sleep(61)
            core.engine("E1", 5.0, jobs=[])
            core.engine("E2", 50.0)
            core.patch(lost, paused=True)
        job = core.must_ask("E1")
        assert job.job_id == job_id
        if name == "done":
            core.complete(job)
        elif name == "failed":
            core.fail(job, FailureClass.INPUT)
        elif name == "cancelled":
            core.cancel(job_id)
    core.submit(60.0, labels={"name": "delayed"}, not_before=core.wall_ms + 30_000)
    core.submit(60.0, labels={"name": "queued"}, requires=["gpu"])
    core.patch(core.submit(60.0, labels={"name": "paused"}), paused=True)
    return core


def ids(core: Core) -> dict[str, str]:
    """Return the jobs of the scene by name."""
    return {core.job(i).labels["name"]: i for i in core.dispatcher.state.order}


def commands(core: Core) -> dict[str, tuple[Any, ...]]:
    """Return every command, in every state of a job that it can meet."""
    by_name = ids(core)
    assigned = by_name["assigned"]
    attempt = core.job(assigned).attempt
    found: dict[str, tuple[Any, ...]] = {
        "submit": (submit.submit, SUBMISSION),
        "submit with a key": (submit.submit, SUBMISSION, IdempotencyKey("new", "d")),
        "submit delayed": (
            submit.submit,
            Submission("http://a/b", "h264", 1.0, not_before=core.wall_ms + 5000),
        ),
        "ask": (assign.ask, "E1"),
        "ask as another engine": (assign.ask, "E2"),
        "assign any": (assign.assign_any,),
        "heartbeat": (engines.heartbeat, Heartbeat("E1", slots=9, tags=[], status="busy"), {}),
        "register": (engines.heartbeat, Heartbeat("E9", benchmark_time=1.0), {}),
        "resume a lost one": (
            engines.heartbeat,
            Heartbeat("E2", jobs=[HeldJob(by_name["gone"], 1)]),
            {},
        ),
        "benchmark": (engines.benchmark, BenchmarkReport("E1", 99.0, {"h264": 0.5})),
        "complete": (reports.complete, assigned, CompleteReport("file:///x", attempt, "E1")),
        "complete a lost one": (reports.complete, by_name["gone"], CompleteReport("file:///x", 1)),
        "complete a queued one": (reports.complete, by_name["queued"], CompleteReport("file:///x")),
        "complete a delayed one": (
            reports.complete,
            by_name["delayed"],
            CompleteReport("file:///x"),
        ),
        "release": (reports.release, assigned, ReleaseReport(attempt, "E1")),
        "drain": (lambda tx: engines.drain(tx, "E1", draining=True),),
        "remove": (engines.remove, "E1"),
        "remove the other": (engines.remove, "E2"),
        "forget": (lambda tx: retire.forget(tx, retire.retirable(tx, 10)),),
    }
    for kind in (None, *FailureClass):
        report = FailReport("no", attempt, "E1", kind)
        found[f"fail: {kind}"] = (reports.fail, assigned, report)
    for name, job_id in by_name.items():
        if core.job(job_id).status in (JobStatus.PENDING, JobStatus.ASSIGNED):
            found[f"cancel {name}"] = (submit.cancel, job_id)
            found[f"pause {name}"] = (submit.patch, job_id, JobPatch(paused=True, priority=2))
            found[f"resume {name}"] = (submit.patch, job_id, JobPatch(paused=False))
            found[f"delay {name}"] = (submit.patch, job_id, FUTURE)
            found[f"hurry {name}"] = (submit.patch, job_id, JobPatch(not_before=None))
        else:
            found[f"restart {name}"] = (submit.restart, job_id)
    return found


NAMES = sorted(commands(scene()))


@pytest.mark.parametrize("name", NAMES)
def test_rolling_back_a_decision_leaves_no_trace(name: str) -> None:
    """Whatever it was; and decided again it comes to the same."""
    core = scene()
    command, *args = commands(core)[name]
    before = derived(core.loaded())
    available = {
        e for e in core.dispatcher.state.engines if core.dispatcher.state.pool.is_available(e)
    }
    decision = core.decide(command, *args)
    check_invariants(core.dispatcher, over_slots_ok=True)
    core.dispatcher.rollback(decision.rollback_changes)
    assert derived(core.dispatcher) == before
    check_invariants(core.dispatcher)
    if not core.dispatcher.state.reservations:
        pool = core.dispatcher.state.pool
        assert {e for e in core.dispatcher.state.engines if pool.is_available(e)} == available
    again = core.decide(command, *args)
    if not name.startswith("submit"):  # an id is never given twice
        assert {c[:2] for c in again.changes} == {c[:2] for c in decision.changes}
    assert [c.table for c in again.changes] == [c.table for c in decision.changes]


@pytest.mark.parametrize("seconds", [16.0, 31.0, 61.0, 301.0])
def test_rolling_back_what_became_due_leaves_no_trace_and_it_becomes_due_again(
    seconds: float,
) -> None:
    """Leases, delays, quarantine."""
    core = scene()
    job = core.job(ids(core)["assigned"])
    core.fail(core.must_ask("E1"), FailureClass.ENGINE) if seconds > 300 else None
    core.wall_ms += int(seconds * 1000)
    core.mono_s += seconds
    before = derived(core.loaded())
    decision = core.decide(expiry.expire_due)
    core.dispatcher.rollback(decision.rollback_changes)
    after = derived(core.dispatcher)
    assert after | {"waiting": 0, "delayed": 0} == before | {"waiting": 0, "delayed": 0}
    check_invariants(core.dispatcher)
    core.sleep(62)
    assert core.job(job.job_id).status is not JobStatus.ASSIGNED
    assert not core.dispatcher.state.delayed


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("second", ["ask", "remove", "assign any", "forget", "heartbeat"])
def test_two_decisions_on_top_of_each_other_are_rolled_back_newest_first(
    first: str, second: str
) -> None:
    """A failed batch and what was decided on top of it."""
    core = scene()
    chosen = commands(core)
    before = derived(core.loaded())
    rollbacks = []
    for name in (first, second):
        command, *args = chosen[name]
        try:
            rollbacks.append(core.decide(command, *args).rollback_changes)
        except DistconvError:
            continue  # the first made the second impossible
    for rollback_changes in reversed(rollbacks):
        core.dispatcher.rollback(rollback_changes)
    assert derived(core.dispatcher) == before
    check_invariants(core.dispatcher)


def test_a_delay_whose_change_was_rolled_back_ends_at_its_earlier_time() -> None:
    """The reminder of the shorter delay has come and gone meanwhile."""
    core = Core()
    core.engine("E1")
    job_id = core.submit(not_before=core.wall_ms + 200_000)
    decision = core.decide(submit.patch, job_id, JobPatch(not_before=core.wall_ms + 10_000))
    core.sleep(11)
    core.dispatcher.rollback(decision.rollback_changes)
    check_invariants(core.dispatcher)
    assert job_id in core.dispatcher.state.delayed
    core.sleep(189.1)
    assert job_id in core.dispatcher.state.queue


def test_rolling_back_the_end_of_an_attempt_restores_its_lease() -> None:
    """It runs on, and is lost like any other if its engine is gone."""
    core = Core()
    core.engine("E1")
    core.submit()
    job = core.must_ask("E1")
    report = CompleteReport("file:///x", 1, "E1")
    core.dispatcher.rollback(core.decide(reports.complete, job.job_id, report).rollback_changes)
    assert job.job_id in core.dispatcher.state.runtime.leases
    core.sleep(61)
    assert core.job(job.job_id).status is JobStatus.PENDING


def test_a_command_that_raises_leaves_no_trace() -> None:
    """Even when it had changed something before."""
    core = scene()
    before = derived(core.loaded())

    def breaks(tx: Any, command: Callable[..., Any], *args: Any) -> None:
        command(tx, *args)
        raise ZeroDivisionError

    for command, *args in commands(core).values():
        with pytest.raises(ZeroDivisionError):
            core.decide(breaks, command, *args)
        check_invariants(core.dispatcher)
    assert derived(core.dispatcher) == before
