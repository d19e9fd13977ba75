"""Check what renews leases, what happens when they expire, and how attempts are resumed."""

import pytest
from tests.core.kit import Core, check_invariants

from distconvd.dispatch import expiry
from distconvd.errors import Conflict
from distconvd.model import Job, JobStatus


def running(core: Core, engine_id: str = "E1") -> Job:
    """Return a job that an engine has just got."""
    core.engine(engine_id)
    core.submit()
    return core.must_ask(engine_id)


def is_alive(core: Core, job: Job) -> bool:
    """Whether the attempt still runs."""
    return core.job(job.job_id).status is JobStatus.ASSIGNED


RENEWALS = {
    "jobs": {"jobs": "assigned"},
    "queue": {"local_job_queue": "assigned"},
    "nothing named": {},
    "progress": None,
}


@pytest.mark.parametrize("how", RENEWALS)
def test_a_lease_is_renewed_by_a_message_that_names_its_attempt_or_no_attempt_at_all(
    how: str,
) -> None:
    """A heartbeat with `jobs`, with the original's queue, a legacy one, and progress."""
    core = Core(start_grace_s=0)
    job = running(core)
    for _ in range(10):
        core.sleep(59)
        if how == "jobs":
            assert core.heartbeat_verdicts("E1", (job.job_id, job.attempt)) == ["keep"]
        elif how == "queue":
            assert core.beat("E1", local_job_queue=[job.job_id]).jobs[0].verdict == "keep"
        elif how == "progress":
            core.progress(job)
        else:
            core.beat("E1")
        assert is_alive(core, job)
    core.sleep(59.9)
    assert is_alive(core, job)
    core.sleep(0.2)
    assert not is_alive(core, job)


@pytest.mark.parametrize("named", [{"jobs": []}, {"local_job_queue": []}])
def test_a_heartbeat_that_does_not_name_an_attempt_does_not_renew_it(
    named: dict[str, list[str]],
) -> None:
    """The engine is alive, but does not have the job."""
    core = Core(start_grace_s=0)
    job = running(core)
    for _ in range(7):
        core.sleep(9)
        core.beat("E1", **named)
    assert not is_alive(core, job)


def test_a_heartbeat_of_another_engine_renews_nothing() -> None:
    """It gets the verdict `cancel` instead."""
    core = Core(start_grace_s=0)
    job = running(core)
    core.engine("E2")
    core.sleep(30)
    assert core.heartbeat_verdicts("E2", (job.job_id, job.attempt)) == ["cancel"]
    core.sleep(30.1)
    assert not is_alive(core, job)


def test_an_expired_lease_costs_no_retry() -> None:
    """The job goes back to its place, and its history says that its engine was lost."""
    core = Core()
    job = running(core)
    core.sleep(61)
    waiting = core.job(job.job_id)
    assert (waiting.status, waiting.retries) == (JobStatus.PENDING, 0)
    assert waiting.error_class == "lost"
    assert core.outcomes(job.job_id) == ["lost"]
    assert core.dispatcher.state.runtime.leases_expired == 1
    assert core.view("E1")["jobs"] == []


def test_a_job_that_outlives_too_many_engines_fails_as_poison() -> None:
    """Exactly `lost_attempts_max` of them."""
    core = Core(lost_attempts_max=3)
    job_id = core.submit(max_retries=99)
    for n in (1, 2, 3):
        core.engine(f"E{n}")
        assert core.must_ask(f"E{n}").attempt == n
        core.sleep(61)
    failed = core.job(job_id)
    assert failed.status is JobStatus.FAILED_PERMANENTLY
    assert failed.error_class == "lost"
    assert "Poison: 3 engines" in (failed.error_message or "")
    assert "failed after 3 attempts" in core.why(job_id)


def test_no_lease_ends_and_no_engine_is_offline_within_the_grace_after_a_start() -> None:
    """Engines need time to find the daemon again."""
    core = Core(lease_s=10, engine_timeout_s=10, start_grace_s=60)
    core.sleep(1000)
    job = running(core)
    core.reload()
    core.sleep(59.9)
    assert is_alive(core, job)
    assert core.view("E1")["status"] != "offline"
    core.sleep(0.2)
    assert not is_alive(core, job)
    assert core.view("E1")["status"] == "offline"


def test_a_running_attempt_goes_on_under_its_number_after_a_restart() -> None:
    """The engine's next contact finds it as it was."""
    core = Core()
    job = running(core)
    core.reload()
    check_invariants(core.dispatcher)
    assert core.heartbeat_verdicts("E1", (job.job_id, 1)) == ["keep"]
    core.complete(job)
    assert core.outcomes(job.job_id) == ["completed"]


def test_a_lease_longer_than_the_grace_is_not_shortened_by_a_restart() -> None:
    """The grace never shortens a lease."""
    core = Core(lease_s=100, start_grace_s=10)
    job = running(core)
    core.reload()
    core.sleep(99)
    assert is_alive(core, job)


@pytest.mark.parametrize("contact", ["heartbeat", "progress", "complete"])
def test_a_lost_attempt_goes_on_when_its_engine_is_back_before_another_engine_starts(
    contact: str,
) -> None:
    """Under the same number; the loss is removed from the history."""
    core = Core()
    job = running(core)
    core.sleep(61)
    assert not is_alive(core, job)
    if contact == "heartbeat":
        assert core.heartbeat_verdicts("E1", (job.job_id, 1)) == ["keep"]
    elif contact == "progress":
        assert core.progress(job).verdict == "keep"
    else:
        core.complete(job)
        assert core.outcomes(job.job_id) == ["completed"]
        return
    again = core.job(job.job_id)
    assert (again.status, again.assigned_engine, again.attempt) == ("assigned", "E1", 1)
    assert again.started_at == job.started_at
    assert core.outcomes(job.job_id) == ["running"]
    core.sleep(59)
    assert is_alive(core, job)
    check_invariants(core.dispatcher)


@pytest.mark.parametrize("contact", ["heartbeat", "progress", "complete"])
def test_a_lost_attempt_is_over_once_another_engine_has_started(contact: str) -> None:
    """Also when that one has been given back since."""
    core = Core()
    job = running(core)
    core.sleep(61)
    core.engine("E2")
    core.release(core.must_ask("E2"))
    if contact == "heartbeat":
        assert core.heartbeat_verdicts("E1", (job.job_id, 1)) == ["cancel"]
    else:
        with pytest.raises(Conflict):
            core.progress(job) if contact == "progress" else core.complete(job)
    assert core.outcomes(job.job_id) == ["lost", "released"]


def test_a_lost_attempt_does_not_go_on_beyond_the_slots_of_its_engine() -> None:
    """It got another job meanwhile; but what it has finished counts."""
    core = Core()
    job = running(core)
    core.sleep(61)
    core.patch(job.job_id, paused=True)
    core.beat("E1")
    other = core.submit()
    assert core.must_ask("E1").job_id == other
    assert core.heartbeat_verdicts("E1", (job.job_id, 1), (other, 1)) == ["cancel", "keep"]
    with pytest.raises(Conflict):
        core.progress(job)
    core.complete(job)
    assert core.job(job.job_id).status is JobStatus.COMPLETED
    assert core.view("E1")["jobs"] == [other]


def test_an_unknown_job_in_a_heartbeat_gets_the_verdict_unknown() -> None:
    """The engine drops it."""
    core = Core()
    core.engine("E1")
    assert core.heartbeat_verdicts("E1", ("1_1", 1), ("1_2", None)) == ["unknown", "unknown"]


def test_a_cancelled_job_reaches_its_engine_at_its_next_contact() -> None:
    """By heartbeat or by progress report; the slot is free immediately."""
    core = Core()
    job = running(core)
    core.cancel(job.job_id)
    assert core.outcomes(job.job_id) == ["cancelled"]
    assert core.heartbeat_verdicts("E1", (job.job_id, 1)) == ["cancel"]
    with pytest.raises(Conflict):
        core.progress(job)
    core.sleep(1000)
    assert core.job(job.job_id).status is JobStatus.CANCELLED


@pytest.mark.parametrize("step_s", [-86_400.0, -1.0, 1.0, 86_400.0])
def test_a_step_of_the_wall_clock_ends_no_lease_and_repeats_no_id(step_s: float) -> None:
    """Durations are monotonic; ids go up whatever the clock says."""
    core = Core(start_grace_s=0)
    job = running(core)
    ids = [job.job_id]
    core.sleep(30, wall_step_s=step_s)
    ids += [core.submit(codec="vp9") for _ in range(3)]
    core.reload()
    ids += [core.submit(codec="vp9") for _ in range(3)]
    core.sleep(29.9)
    assert is_alive(core, job)
    assert ids == sorted(set(ids))
    assert core.view("E1")["status"] != "offline"
    check_invariants(core.dispatcher)


def test_a_delay_ends_when_the_wall_clock_says_so_after_a_step_forward() -> None:
    """`not_before` is a time of day, not a duration."""
    core = Core()
    core.engine("E1")
    job_id = core.submit(not_before=core.wall_ms + 3_600_000)
    core.sleep(1, wall_step_s=3_600)
    assert core.must_ask("E1").job_id == job_id


def test_a_delay_is_not_lost_when_the_wall_clock_steps_back() -> None:
    """The job waits for its time and is then taken."""
    core = Core()
    core.engine("E1", 5.0)
    job_id = core.submit(not_before=core.wall_ms + 10_000)
    core.sleep(9)
    core.sleep(1.5, wall_step_s=-100)
    core.beat("E1")
    assert core.ask("E1") is None
    for _ in range(3):
        core.sleep(33)
        core.beat("E1")
    assert core.ask("E1") is None
    core.sleep(0.5)
    assert core.must_ask("E1").job_id == job_id


def test_the_time_for_which_the_daemon_was_suspended_counts_against_no_lease_and_no_engine() -> (
    None
):
    """No heartbeat could be received."""
    core = Core()
    core.engine("E1")
    core.submit()
    job = core.must_ask("E1")
    core.run(expiry.extend_leases, 100.0)
    core.sleep(159)
    assert core.job(job.job_id).assigned_engine == "E1"
    assert core.view("E1")["status"] != "offline"
    core.sleep(2)
    assert core.job(job.job_id).status is JobStatus.PENDING
