"""What is a duration lasts as long as it should, whatever somebody does to the wall clock."""

import pytest
from tests.core.kit import START_MS, Core, check_invariants

from distconvd.model import Job, JobStatus
from distconvd.policy import Hold, IdleEngines, Place

DAY_S = 86_400.0
STEPS = pytest.mark.parametrize("step_s", [-DAY_S, DAY_S, -400 * DAY_S, 400 * DAY_S])
RESTARTS = pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
BACKOFF_S = 40.0


def step(core: Core, step_s: float, *, is_restarted: bool = False) -> None:
    """Set the wall clock, with or without a restart of the daemon right after it."""
    core.sleep(0.3, wall_step_s=step_s)
    if is_restarted:
        core.reload()
    core.beat("E1")


def backing_off() -> tuple[Core, Job]:
    """Return a job in its first backoff, which is the second failure's."""
    core = Core(retry_backoff_s=BACKOFF_S, retry_elsewhere_s=0, start_grace_s=0)
    core.engine("E1")
    core.submit()
    core.fail(core.must_ask("E1"))
    job = core.must_ask("E1")
    core.fail(job)
    return core, core.job(job.job_id)


def wait(core: Core, seconds: float) -> None:
    """Let time pass, with a living engine."""
    for _ in range(int(seconds // 10)):
        core.sleep(10)
        core.beat("E1")
    core.sleep(seconds % 10)
    core.beat("E1")


@STEPS
def test_a_backoff_lasts_as_long_as_it_should(step_s: float) -> None:
    core, job = backing_off()
    step(core, step_s)
    assert core.ask("E1") is None
    assert core.why(job.job_id) == "It waits 40 s more for the backoff after a failure."
    stated_ms = core.job(job.job_id).not_before
    assert stated_ms is not None
    assert abs(stated_ms - core.wall_ms - 39_700) <= 1
    wait(core, BACKOFF_S - 1)
    assert core.ask("E1") is None
    check_invariants(core.dispatcher)
    wait(core, 0.8)
    assert core.must_ask("E1").job_id == job.job_id


@pytest.mark.parametrize("step_s", [-DAY_S, -400 * DAY_S])
def test_after_a_restart_with_an_earlier_clock_a_backoff_is_no_longer_than_it_was(
    step_s: float,
) -> None:
    core, job = backing_off()
    core.wall_ms += int(step_s * 1000)
    core.reload()
    core.beat("E1")
    assert core.ask("E1") is None
    wait(core, BACKOFF_S + 0.1)
    assert core.must_ask("E1").job_id == job.job_id


def test_a_job_that_is_edited_and_restarted_after_a_step_waits_no_longer_either() -> None:
    core, job = backing_off()
    step(core, -DAY_S)
    core.patch(job.job_id, priority=5)
    step(core, 0, is_restarted=True)
    wait(core, BACKOFF_S)
    assert core.must_ask("E1").job_id == job.job_id


@STEPS
@RESTARTS
def test_a_quarantine_lasts_as_long_as_it_should(step_s: float, is_restarted: bool) -> None:
    core = Core(
        quarantine_after=2, quarantine_s=40.0, retry_backoff_s=0, retry_elsewhere_s=0,
        start_grace_s=0,
    )  # fmt: skip
    core.engine("E1")
    for _ in range(2):
        core.submit(max_retries=0)
        core.fail(core.must_ask("E1"))
    assert core.view("E1")["status"] == "quarantined"
    waiting = core.submit()
    step(core, step_s, is_restarted=is_restarted)
    if not is_restarted:
        stated_ms = core.view("E1")["quarantined_until"]
        assert abs(stated_ms - core.wall_ms - 39_700) <= 1
    wait(core, 39)
    assert core.ask("E1") is None
    wait(core, 1)
    assert core.must_ask("E1").job_id == waiting


@STEPS
def test_a_retry_waits_for_another_engine_as_long_as_it_should(step_s: float) -> None:
    core = Core(retry_backoff_s=0, retry_elsewhere_s=20.0, start_grace_s=0)
    core.engine("E2")
    core.submit()
    core.must_ask("E2")  # has no free slot now
    core.engine("E1")
    core.submit()
    job = core.must_ask("E1")
    core.fail(job)
    assert core.ask("E1") is None
    step(core, step_s)
    assert core.ask("E1") is None
    wait(core, 18)
    assert core.ask("E1") is None
    wait(core, 2)
    assert core.must_ask("E1").job_id == job.job_id


@pytest.mark.parametrize("step_s", [-DAY_S, DAY_S])
def test_an_assignment_whose_reply_was_lost_is_delivered_again_in_time(step_s: float) -> None:
    core = Core(redeliver_s=5.0, start_grace_s=0)
    core.engine("E1", slots=2)
    core.submit()
    job = core.must_ask("E1")
    core.sleep(1, wall_step_s=step_s)
    core.heartbeat_verdicts("E1")
    assert core.ask("E1") is None, "the reply may still be on its way"
    core.sleep(6)
    core.heartbeat_verdicts("E1")
    assert core.must_ask("E1").job_id == job.job_id


class AtTime:
    """A policy that holds all jobs until a moment."""

    def __init__(self, until_ms: int) -> None:
        self.until_ms = until_ms

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        engine = engines.fastest()
        if now_ms < self.until_ms or engine is None:
            return Hold("it is not time", self.until_ms)
        return Place(engine.engine_id, "it is time")


def test_a_policy_is_asked_again_when_the_clock_was_set_to_the_time_it_waits_for() -> None:
    core = Core(policy=AtTime(START_MS + int(DAY_S * 1000)), start_grace_s=0)
    core.engine("E1")
    core.add_waiter("E1")
    job_id = core.submit()
    assert core.job(job_id).status is JobStatus.PENDING
    core.sleep(1, wall_step_s=DAY_S)
    assert core.job(job_id).status is JobStatus.ASSIGNED
