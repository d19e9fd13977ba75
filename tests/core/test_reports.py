"""Check what each report does in each state of its job: complete, fail, release, progress."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.core.kit import Core, check_invariants

from distconvd.errors import Conflict, NotFound
from distconvd.model import FailureClass, Job, JobStatus

OLD, NONE = "old", None
URL = "file:///out.mp4"


def assigned(core: Core, **fields: Any) -> Job:
    """Return a job that is assigned to E1; E2 could take it too."""
    core.engine("E1", 10.0)
    core.engine("E2", 20.0)
    core.submit(**fields)
    return core.must_ask("E1")


def lost(core: Core, **fields: Any) -> Job:
    """Return a job whose attempt on E1 was lost; it is pending."""
    job = assigned(core, **fields)
    core.sleep(61)
    assert core.job(job.job_id).status is JobStatus.PENDING
    return job


def on_another_engine(core: Core) -> Job:
    """Return a job as E1 knew it, which is now assigned to E2 under the next attempt."""
    job = lost(core)
    core.beat("E2")
    taken = core.must_ask("E2")
    assert taken.attempt == 2
    return job


def failed_once(core: Core) -> Job:
    """Return a job that E1 failed; it waits for a retry."""
    job = assigned(core)
    core.fail(job)
    return job


def completed(core: Core) -> Job:
    """Return a job that E1 has done."""
    job = assigned(core)
    core.complete(job, url=URL)
    return job


def given_up(core: Core) -> Job:
    """Return a job that failed for good."""
    job = assigned(core, max_retries=0)
    core.fail(job)
    return job


def cancelled(core: Core) -> Job:
    """Return a job that was cancelled while E1 worked."""
    job = assigned(core)
    core.cancel(job.job_id)
    return job


def poisoned(core: Core) -> Job:
    """Return a job that outlived too many engines."""
    core.settings = core.dispatcher.settings = type(core.settings)(lost_attempts_max=1)
    job = assigned(core)
    core.sleep(61)
    return job


def never_assigned(core: Core) -> Job:
    """Return a job that waits for its first attempt."""
    core.engine("E1", 10.0)
    return core.job(core.submit())


STATES: dict[str, Callable[[Core], Job]] = {
    f.__name__: f
    for f in (
        never_assigned, assigned, lost, on_another_engine, failed_once, completed, given_up,
        cancelled, poisoned,
    )
}  # fmt: skip


def send(core: Core, report: str, job: Job, attempt: int | None, engine: str | None) -> str:
    """Send a report; return its answer in short."""
    try:
        if report == "complete":
            core.complete(job, url=URL, attempt=attempt, engine_id=engine)
        elif report == "fail":
            said = core.fail(job, attempt=attempt, engine_id=engine)
            return "requeued" if "re-queued" in said else "failed"
        elif report == "release":
            core.release(job, attempt=attempt, engine_id=engine)
        else:
            core.progress(job, attempt=attempt, engine_id=engine)
    except Conflict:
        return "409"
    return "ok"


# state: the answers to complete, fail, release and progress of E1's attempt
CURRENT_TABLE = {
    "never_assigned": ("409", "409", "409", "409"),
    "assigned": ("ok", "requeued", "ok", "ok"),
    "lost": ("ok", "requeued", "ok", "ok"),
    "on_another_engine": ("409", "409", "409", "409"),
    "failed_once": ("409", "requeued", "409", "409"),
    "completed": ("ok", "409", "409", "409"),
    "given_up": ("409", "failed", "409", "409"),
    "cancelled": ("409", "409", "409", "409"),
    "poisoned": ("409", "409", "409", "409"),
}
REPORTS = ("complete", "fail", "release", "progress")
ROWS = [
    (state, report, answer)
    for state, answers in CURRENT_TABLE.items()
    for report, answer in zip(REPORTS, answers, strict=True)
]


@pytest.mark.parametrize("state, report, answer", ROWS)
def test_a_report_of_the_last_attempt_counts_as_the_table_says(
    state: str, report: str, answer: str
) -> None:
    """Each report in each state; a refused one and a repeated one change nothing."""
    core = Core()
    job = STATES[state](core)
    before = dict(core.disk["jobs"]), dict(core.disk["attempts"])
    assert send(core, report, job, job.attempt, "E1") == answer
    check_invariants(core.dispatcher)
    is_repetition = (state, report) in (
        ("completed", "complete"), ("given_up", "fail"), ("failed_once", "fail"),
    )  # fmt: skip
    if answer == "409" or is_repetition:
        assert (core.disk["jobs"], core.disk["attempts"]) == before


@pytest.mark.parametrize("state, report, answer", ROWS)
def test_a_repeated_report_is_answered_as_before_and_changes_nothing(
    state: str, report: str, answer: str
) -> None:
    """Its reply may have been lost."""
    core = Core()
    job = STATES[state](core)
    first = send(core, report, job, job.attempt, "E1")
    before = dict(core.disk["jobs"]), dict(core.disk["attempts"])
    assert send(core, report, job, job.attempt, "E1") == first == answer
    assert (core.disk["jobs"], core.disk["attempts"]) == before


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("state", ["assigned", "lost", "completed", "given_up", "cancelled"])
@pytest.mark.parametrize("attempt", [0, -1, 2, 99])
def test_a_report_of_another_attempt_is_refused_and_changes_nothing(
    state: str, report: str, attempt: int
) -> None:
    """The attempt number is the fencing token, whichever way it is wrong."""
    core = Core()
    job = STATES[state](core)
    before = dict(core.disk["jobs"]), dict(core.disk["attempts"])
    assert send(core, report, job, attempt, "E1") == "409"
    assert (core.disk["jobs"], core.disk["attempts"]) == before


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("state", ["assigned", "lost", "completed", "given_up"])
def test_a_report_of_another_engine_on_the_attempt_is_refused(state: str, report: str) -> None:
    """E2 cannot speak of E1's attempt."""
    core = Core()
    job = STATES[state](core)
    before = dict(core.disk["jobs"]), dict(core.disk["attempts"])
    assert send(core, report, job, job.attempt, "E2") == "409"
    assert (core.disk["jobs"], core.disk["attempts"]) == before


@pytest.mark.parametrize("report", ["complete", "fail", "progress"])
@pytest.mark.parametrize("state", ["assigned", "lost"])
def test_a_report_that_names_no_engine_counts_by_its_attempt(state: str, report: str) -> None:
    """The attempt alone says which engine it was."""
    core = Core()
    job = STATES[state](core)
    assert send(core, report, job, job.attempt, None) in ("ok", "requeued")
    assert core.attempts(job.job_id)[-1].engine_id == "E1"


LEGACY_TABLE = {
    "never_assigned": ("ok", "requeued"),
    "assigned": ("ok", "requeued"),
    "lost": ("ok", "requeued"),
    "on_another_engine": ("ok", "requeued"),
    "failed_once": ("ok", "requeued"),
    "completed": ("ok", "409"),
    "given_up": ("409", "failed"),
    "cancelled": ("409", "409"),
    "poisoned": ("409", "409"),
}


@pytest.mark.parametrize("engine", ["E1", None])
@pytest.mark.parametrize(
    "state, report, answer",
    [
        (state, report, answer)
        for state, answers in LEGACY_TABLE.items()
        for report, answer in zip(REPORTS, answers, strict=False)
    ],
)
def test_a_report_without_an_attempt_is_judged_by_the_jobs_state(
    state: str, report: str, answer: str, engine: str | None
) -> None:
    """The original's engines know no attempts: late work is still work."""
    core = Core()
    job = STATES[state](core)
    assert send(core, report, job, None, engine) == answer
    check_invariants(core.dispatcher)


def test_a_completion_of_a_pending_job_leaves_a_trace() -> None:
    """It ends no attempt, but the history shows which engine did it."""
    core = Core()
    job = never_assigned(core)
    core.complete(job, attempt=None, engine_id="E9")
    assert [(a.number, a.engine_id, a.outcome) for a in core.attempts(job.job_id)] == [
        (0, "E9", "completed")
    ]
    assert core.job(job.job_id).assigned_engine == "E9"


def test_a_legacy_report_is_credited_to_the_engine_that_sends_it() -> None:
    """E1's late work counts, and its repetition too, although E2 has the job now."""
    core = Core()
    job = on_another_engine(core)
    core.complete(job, attempt=None, engine_id="E1")
    assert core.job(job.job_id).assigned_engine == "E1"
    assert core.complete(job, attempt=None, engine_id="E1").endswith("marked as completed")
    assert core.heartbeat_verdicts("E2", (job.job_id, 2)) == ["cancel"]


def test_a_legacy_failure_that_repeats_on_a_waiting_job_counts_twice() -> None:
    """It cannot be distinguished from a second failure, so retries are used up."""
    core = Core()
    job = never_assigned(core)
    for retries in (1, 2, 3):
        core.fail(job, None, attempt=None, engine_id=None)
        assert core.job(job.job_id).retries == retries
    assert "failed permanently" in core.fail(job, None, attempt=None, engine_id=None)
    assert "failed permanently" in core.fail(job, None, attempt=None, engine_id=None)
    assert core.job(job.job_id).retries == 3


def test_the_first_terminal_report_wins() -> None:
    """A second one that contradicts it is refused, whichever comes first."""
    core = Core()
    job = completed(core)
    with pytest.raises(Conflict):
        core.complete(job, url="file:///other.mp4")
    assert core.job(job.job_id).output_url == URL
    other = Core()
    job = failed_once(other)
    with pytest.raises(Conflict):
        other.complete(job)
    with pytest.raises(Conflict):
        other.fail(job, message="another reason")


def test_an_old_failure_is_answered_as_before_while_another_engine_works() -> None:
    """The report of attempt 1 is repeated after attempt 2 began, and changes nothing."""
    core = Core()
    job = failed_once(core)
    second = core.must_ask("E2")
    assert core.fail(job) == f"Job {job.job_id} re-queued"
    assert core.job(job.job_id) == second


def test_a_report_on_an_unknown_job_is_refused() -> None:
    """There is no record of it."""
    core = Core()
    ghost = Job("123_4", "http://x/y", "h264", attempt=1)
    for report in REPORTS:
        with pytest.raises(NotFound):
            send(core, report, ghost, 1, "E1")


def test_a_completion_reports_what_was_verified_and_clears_the_error() -> None:
    """The error of an earlier attempt stays in the history only."""
    core = Core()
    failed_once(core)
    job = core.must_ask("E2")
    assert (job.error_message, job.error_class) == (None, None)
    core.sleep(3)
    core.complete(job)
    done = core.job(job.job_id)
    assert done.status is JobStatus.COMPLETED
    assert done.assigned_engine == "E2"
    assert (done.finished_at or 0) - (done.started_at or 0) == 3000
    assert [a.message for a in core.attempts(job.job_id)] == ["it broke", None]


def test_progress_is_shown_and_never_stored() -> None:
    """It renews the lease and costs no disk."""
    core = Core()
    job = assigned(core)
    stored = dict(core.disk["jobs"])
    verdict = core.progress(job, fraction=7.0)
    assert verdict.verdict == "keep"
    shown = core.job(job.job_id).progress
    assert shown is not None
    assert shown.fraction == 1.0
    assert core.disk["jobs"] == stored
    core.complete(job)
    assert core.job(job.job_id).progress is None


def test_progress_of_a_paused_job_makes_the_engine_pause() -> None:
    """A running attempt learns of it at its next contact."""
    core = Core()
    job = assigned(core)
    core.patch(job.job_id, paused=True)
    assert core.progress(job).paused


def test_a_release_charges_no_retry_and_counts_no_failure_of_the_engine() -> None:
    """The engine drains: the job can be assigned again immediately."""
    core = Core(quarantine_after=1)
    job = assigned(core)
    core.release(job)
    waiting = core.job(job.job_id)
    assert (waiting.status, waiting.retries, waiting.assigned_engine) == ("pending", 0, None)
    assert core.view("E1")["status"] == "idle"
    assert core.outcomes(job.job_id) == ["released"]
    assert core.must_ask("E1").attempt == 2


def test_a_failure_that_the_engine_calls_cancelled_is_charged_as_its_own() -> None:
    """Without a charge the job would be retried without end."""
    core = Core()
    job = assigned(core, max_retries=0)
    assert "failed permanently" in core.fail(job, FailureClass.CANCELLED)


def test_a_legacy_engine_that_said_busy_is_idle_again_when_its_last_job_ends() -> None:
    """As with the original; but not when its job was cancelled or lost: it may still be at it."""
    core = Core()
    job = assigned(core)
    core.beat("E1", status="busy")
    core.complete(job)
    assert core.view("E1")["status"] == "idle"
    core.submit()
    job = core.must_ask("E1")
    core.beat("E1", status="busy")
    core.cancel(job.job_id)
    assert core.view("E1")["status"] == "busy"


def test_the_history_is_bounded_and_counts_what_it_dropped() -> None:
    """64 ended attempts are kept."""
    core = Core(retry_backoff_s=0.0, quarantine_after=0, retry_elsewhere_s=0.0)
    core.engine("E1")
    job_id = core.submit(max_retries=1000)
    for _ in range(70):
        core.sleep(1)
        core.beat("E1")
        core.fail(core.must_ask("E1"))
    history = core.dispatcher.state.history(job_id)
    assert len(history.attempts) == 64
    assert history.dropped == 6
    assert history.attempts[-1].number == 70
    check_invariants(core.dispatcher)
