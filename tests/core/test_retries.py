"""Check what each failure class costs, how long a job waits, where it goes; quarantine."""

from typing import Any

import pytest
from tests.core.kit import Core, check_invariants

from distconvd.model import FailureClass, JobStatus

INPUT, ENGINE = FailureClass.INPUT, FailureClass.ENGINE
TRANSIENT, VERIFICATION = FailureClass.TRANSIENT, FailureClass.VERIFICATION
NOT_ALLOWED = FailureClass.NOT_ALLOWED
NO_ACCESS = FailureClass.NO_ACCESS


def one(core: Core, **fields: Any) -> str:
    """Register one engine and submit a job."""
    core.engine("E1")
    return core.submit(**fields)


def take(core: Core, engine_id: str = "E1") -> int:
    """Let the engine take the job as soon as it can; return how many seconds that took."""
    for waited in range(2000):
        core.beat(engine_id)
        if core.ask(engine_id) is not None:
            return waited
        core.sleep(1)
    raise AssertionError(core.why_all())


@pytest.mark.parametrize("kind", [ENGINE, VERIFICATION, None])
@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_a_charged_failure_is_retried_exactly_max_retries_times(
    kind: FailureClass | None, max_retries: int
) -> None:
    """`max_retries` counts the retries after the first attempt; 0 means that one failure ends
    it."""
    core = Core(retry_backoff_s=0, quarantine_after=0, retry_elsewhere_s=0)
    job_id = one(core, max_retries=max_retries)
    for attempt in range(1, max_retries + 2):
        take(core)
        assert core.job(job_id).attempt == attempt
        assert core.job(job_id).retries == attempt - 1
        said = core.fail(core.job(job_id), kind, message=f"no {attempt}")
        assert said.endswith("re-queued" if attempt <= max_retries else "failed permanently")
    failed = core.job(job_id)
    assert (failed.status, failed.retries) == (JobStatus.FAILED_PERMANENTLY, max_retries)
    assert failed.assigned_engine == "E1"


def test_a_bad_source_is_never_retried() -> None:
    """No engine could do better."""
    core = Core()
    job_id = one(core, max_retries=9)
    take(core)
    assert "failed permanently" in core.fail(core.job(job_id), INPUT)
    assert core.job(job_id).error_class is INPUT
    assert core.job(job_id).retries == 0


def test_transient_failures_cost_no_retry_until_there_are_too_many() -> None:
    """So that every job ends."""
    core = Core(transient_attempts_max=4, retry_backoff_s=0, retry_elsewhere_s=0)
    job_id = one(core, max_retries=1)
    for attempt in range(1, 7):
        take(core)
        core.fail(core.job(job_id), TRANSIENT, message=f"no {attempt}")
        assert core.job(job_id).retries == max(0, min(1, attempt - 4))
    assert core.job(job_id).status is JobStatus.FAILED_PERMANENTLY
    assert core.job(job_id).attempt == 6


@pytest.mark.parametrize(
    "kind, waits",
    [
        (ENGINE, [0, 5, 10, 20, 40, 60, 60]),
        (TRANSIENT, [5, 10, 20, 40, 60, 60]),
    ],
)
def test_the_first_retry_is_immediate_and_later_ones_wait_twice_as_long(
    kind: FailureClass, waits: list[int]
) -> None:
    """A transient failure waits from the first retry; the wait is bounded."""
    core = Core(retry_backoff_max_s=60, retry_elsewhere_s=0, quarantine_after=0)
    job_id = one(core, max_retries=99)
    take(core)
    for n, wait_s in enumerate(waits):
        core.fail(core.job(job_id), kind, message=f"no {n}")
        assert take(core) == wait_s


def test_a_waiting_retry_says_how_long_it_waits_and_survives_a_restart() -> None:
    """The backoff is durable."""
    core = Core()
    job_id = one(core)
    take(core)
    core.fail(core.job(job_id), TRANSIENT)
    assert core.why(job_id) == "It waits 5 s more for the backoff after a failure."
    core.sleep(2)
    core.reload()
    check_invariants(core.dispatcher)
    assert core.why(job_id) == "It waits 3 s more for the backoff after a failure."
    assert take(core) == 3


def test_there_is_no_backoff_when_it_is_turned_off() -> None:
    """Setting 0."""
    core = Core(retry_backoff_s=0, retry_elsewhere_s=0)
    job_id = one(core)
    for n in range(3):
        assert take(core) == 0
        core.fail(core.job(job_id), TRANSIENT, message=str(n))


@pytest.mark.parametrize("kind", [NOT_ALLOWED, NO_ACCESS])
def test_what_only_this_engine_cannot_reach_goes_to_each_other_engine_once(
    kind: FailureClass,
) -> None:
    """At once and free of charge; the job ends when no engine is left, with what they all said."""
    core = Core(quarantine_after=1)
    names = ["E1", "E2", "E3"]
    for name in names:
        core.engine(name, 5.0)
    job_id = core.submit(max_retries=0)
    tried: list[str] = []
    said = ""
    for _ in names:
        [job] = [job for job in map(core.ask, names) if job is not None]
        assert job.assigned_engine is not None
        tried.append(job.assigned_engine)
        said = core.fail(job, kind, message=f"no share on {tried[-1]}")
    assert sorted(tried) == names
    assert said.endswith("failed permanently")
    job = core.job(job_id)
    assert job.error_message == (
        f"None of the 3 engines that could take it can do it. no share on {tried[-1]}"
    )
    assert job.error_class is (FailureClass.INPUT if kind is NO_ACCESS else kind)
    assert job.retries == 0
    assert {core.view(name)["status"] for name in ("E1", "E2", "E3")} == {"idle"}


def test_an_engine_that_cannot_reach_it_does_not_get_it_again_while_another_is_busy() -> None:
    core = Core(retry_elsewhere_s=30)
    core.engine("E1", 5.0)
    core.engine("E2", 50.0)
    core.beat("E2", status="busy")
    job_id = one(core)
    core.fail(core.must_ask("E1"), NO_ACCESS)
    for _ in range(10):
        core.sleep(20)
        core.beat("E2", status="busy")
        core.beat("E1")
        assert core.ask("E1") is None
    core.beat("E2", status="idle")
    assert core.must_ask("E2").job_id == job_id


def test_an_engine_shows_what_it_lacks_until_it_has_completed_a_job() -> None:
    core = Core()
    core.engine("E1", 5.0)
    core.submit(60.0)
    core.fail(core.must_ask("E1"), NO_ACCESS, message="no share")
    assert core.view("E1")["lacks"] == "no share"
    core.submit(60.0)
    core.complete(core.must_ask("E1"))
    assert core.view("E1")["lacks"] is None


def test_a_refused_output_place_ends_the_job_and_blames_no_engine() -> None:
    core = Core(quarantine_after=1)
    core.engine("E1", 5.0)
    core.engine("E2", 5.0)
    job_id = core.submit(60.0)
    said = core.fail(core.must_ask("E1"), FailureClass.OUTPUT, message="it answered 404")
    assert said.endswith("failed permanently")
    assert core.job(job_id).error_class is FailureClass.OUTPUT
    assert core.view("E1")["status"] == "idle"


@pytest.mark.parametrize("kind", [ENGINE, NOT_ALLOWED])
def test_a_retry_prefers_an_engine_that_has_not_failed_the_job(kind: FailureClass) -> None:
    """Although the policy would choose the one that did."""
    core = Core()
    core.engine("E1", 5.0)
    core.engine("E2", 50.0)
    job_id = core.submit(60.0)
    core.fail(core.must_ask("E1"), kind)
    assert core.ask("E1") is None
    assert core.must_ask("E2").job_id == job_id


def test_a_retry_waits_for_a_busy_engine_that_has_not_failed_it_but_not_forever() -> None:
    """After `retry_elsewhere_s` any engine will do, one in a long poll too."""
    core = Core(retry_elsewhere_s=30)
    core.engine("E1", 5.0)
    core.engine("E2", 50.0)
    core.beat("E2", status="busy")
    job_id = core.submit(60.0)
    core.fail(core.must_ask("E1"))
    assert core.ask("E1") is None
    assert "has failed on every idle engine" in core.why(job_id)
    core.add_waiter("E1")
    core.sleep(29.9)
    assert core.job(job_id).status is JobStatus.PENDING
    core.sleep(0.2)
    assert core.job(job_id).assigned_engine == "E1"


def test_a_retry_after_a_long_backoff_still_prefers_another_engine() -> None:
    """The backoff does not count as waiting for another engine."""
    core = Core(retry_elsewhere_s=30, retry_backoff_s=100)
    core.engine("E1", 5.0)
    core.engine("E2", 50.0)
    core.beat("E2", status="busy")
    job_id = core.submit(60.0)
    core.fail(core.must_ask("E1"), TRANSIENT)
    for _ in range(10):
        core.sleep(10)
        core.beat("E1")
        core.beat("E2")
    assert job_id in core.dispatcher.state.queue
    assert core.ask("E1") is None
    core.beat("E2", status="idle")
    assert core.must_ask("E2").job_id == job_id


@pytest.mark.parametrize("other", ["none", "offline", "draining", "wrong codec"])
def test_a_retry_goes_back_to_the_same_engine_if_no_other_can_take_it(other: str) -> None:
    """Immediately: there is no engine to wait for."""
    core = Core(engine_timeout_s=20, start_grace_s=20)
    core.engine("E1", 5.0)
    if other != "none":
        core.engine("E2", 4.0, supported_codecs=["vp9" if other == "wrong codec" else "h264"])
    if other == "draining":
        core.drain("E2")
    elif other == "offline":
        core.sleep(19)
        core.beat("E1")
        core.sleep(2)
    job_id = core.submit(60.0)
    core.fail(core.must_ask("E1"))
    assert core.must_ask("E1").job_id == job_id


def test_a_job_that_every_engine_has_failed_goes_where_the_policy_wants_it() -> None:
    """There is no engine left to prefer."""
    core = Core()
    core.engine("E1", 5.0)
    core.engine("E2", 4.0)
    job_id = core.submit(60.0)
    core.fail(core.must_ask("E2"))
    core.fail(core.must_ask("E1"))
    core.sleep(5)
    job = core.assign_any()
    assert job is not None
    assert (job.job_id, job.assigned_engine) == (job_id, "E2")


def test_an_engine_that_was_lost_with_a_job_counts_as_having_failed_it() -> None:
    """The next one gets it."""
    core = Core()
    core.engine("E1", 5.0)
    core.submit(60.0)
    core.must_ask("E1")
    core.sleep(61)
    core.engine("E1", 5.0, jobs=[])
    core.engine("E2", 50.0)
    assert core.ask("E1") is None
    assert core.must_ask("E2").attempt == 2


def fail_jobs(core: Core, count: int, kind: FailureClass | None = ENGINE) -> None:
    """Let E1 fail this many jobs, one after the other."""
    for _ in range(count):
        core.submit(max_retries=0)
        core.fail(core.must_ask("E1"), kind)


def test_an_engine_that_fails_different_jobs_in_a_row_is_quarantined_and_freed_again() -> None:
    """After its time it is on probation: one more failure is enough."""
    core = Core(quarantine_after=3, quarantine_s=100)
    core.engine("E1")
    fail_jobs(core, 2)
    assert core.view("E1")["status"] == "idle"
    fail_jobs(core, 1)
    assert core.view("E1")["status"] == "quarantined"
    job_id = core.submit()
    for _ in range(9):
        core.sleep(11)
        core.beat("E1")
        assert core.ask("E1") is None
    assert "1 is quarantined" in core.why(job_id)
    core.sleep(1.1)
    assert core.view("E1")["status"] == "idle"
    core.fail(core.must_ask("E1"))
    assert core.view("E1")["status"] == "quarantined"
    assert core.published_count("engine.quarantined") == 2
    check_invariants(core.dispatcher)


def test_a_success_ends_a_run_of_failures() -> None:
    """In a row means in a row."""
    core = Core(quarantine_after=3)
    core.engine("E1")
    for _ in range(4):
        fail_jobs(core, 2)
        core.submit()
        core.complete(core.must_ask("E1"))
    assert core.view("E1")["status"] == "idle"


def test_the_same_job_failing_again_counts_once() -> None:
    """It may be the job."""
    core = Core(quarantine_after=2, retry_backoff_s=0, retry_elsewhere_s=0)
    core.engine("E1")
    core.submit(max_retries=9)
    for n in range(5):
        core.fail(core.must_ask("E1"), message=str(n))
    assert core.view("E1")["status"] == "idle"


@pytest.mark.parametrize("kind", [None, INPUT, TRANSIENT, NOT_ALLOWED])
def test_an_engine_is_not_blamed_for_the_source_the_network_or_its_settings(
    kind: FailureClass | None,
) -> None:
    """Nor on a legacy report, which names no class."""
    core = Core(quarantine_after=1)
    core.engine("E1")
    fail_jobs(core, 3, kind)
    assert core.view("E1")["status"] == "idle"


@pytest.mark.parametrize("limit", [1, 2])
def test_the_record_of_failed_jobs_is_bounded_by_the_limit(limit: int) -> None:
    """Also where one failure is enough."""
    core = Core(quarantine_after=limit, quarantine_s=1)
    core.engine("E1")
    for _ in range(5):
        fail_jobs(core, 1)
        core.sleep(2)
        assert len(core.dispatcher.state.engine("E1").record.failed_jobs) < limit


def test_a_quarantine_survives_a_restart_and_ends_in_time() -> None:
    """It is stored in the engine's record."""
    core = Core(quarantine_after=1, quarantine_s=100)
    core.engine("E1")
    fail_jobs(core, 1)
    core.sleep(40)
    core.reload()
    check_invariants(core.dispatcher)
    assert core.view("E1")["status"] == "quarantined"
    core.sleep(59)
    assert core.view("E1")["status"] in ("quarantined", "offline")
    core.sleep(2)
    core.beat("E1")
    assert core.view("E1")["status"] == "idle"


def test_resuming_an_engine_ends_its_quarantine_and_its_record_of_failures() -> None:
    """A person has looked at it."""
    core = Core(quarantine_after=2, quarantine_s=100)
    core.engine("E1")
    fail_jobs(core, 2)
    core.drain("E1", draining=False)
    assert core.view("E1")["status"] == "idle"
    fail_jobs(core, 1)
    assert core.view("E1")["status"] == "idle"


def test_a_job_that_is_released_again_and_again_waits_longer_each_time() -> None:
    """The first release may be a drain; a loop of releases must not be a busy one."""
    core = Core(retry_backoff_s=10, retry_elsewhere_s=0)
    core.engine("E1")
    core.submit()
    core.release(core.must_ask("E1"))
    for wait_s in (10, 20, 40):
        core.release(core.must_ask("E1"))
        core.sleep(wait_s - 1)
        core.beat("E1")
        assert core.ask("E1") is None
        core.sleep(1)
        core.beat("E1")


def test_a_not_before_that_was_set_while_the_job_ran_still_counts_after_a_failure() -> None:
    """The backoff is shorter."""
    core = Core(retry_backoff_s=10, retry_elsewhere_s=0)
    core.engine("E1")
    core.submit(max_retries=3)
    job = core.must_ask("E1")
    core.patch(job.job_id, not_before=core.wall_ms + 60_000)
    core.fail(job)
    core.sleep(59)
    core.beat("E1")
    assert core.ask("E1") is None
    core.sleep(2)
    core.beat("E1")
    assert core.must_ask("E1").job_id == job.job_id
