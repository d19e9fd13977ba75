"""Report active attempts as lost after an engine was killed: the job is charged no retry."""

import pytest
from tests.core.kit import Core

from distconvd.errors import Conflict
from distconvd.model import FailureClass, JobStatus


def test_a_loss_that_the_engine_reports_itself_costs_the_job_no_retry() -> None:
    """DESIGN section 3: a lost engine costs the job no retry."""
    core = Core()
    core.engine("e")
    job_id = core.submit(max_retries=0)
    job = core.must_ask("e")
    assert core.fail(job, FailureClass.LOST, message="killed") == f"Job {job_id} re-queued"
    assert core.job(job_id).status is JobStatus.PENDING
    assert core.job(job_id).retries == 0
    assert core.outcomes(job_id) == ["lost"]


def test_a_reported_loss_is_answered_again_as_before() -> None:
    """Its reply may have been lost as well."""
    core = Core()
    core.engine("e")
    core.submit()
    job = core.must_ask("e")
    first = core.fail(job, FailureClass.LOST, message="killed")
    assert core.fail(job, FailureClass.LOST, message="killed") == first
    assert core.outcomes(job.job_id) == ["lost"]


def test_a_job_that_engines_report_as_lost_again_and_again_ends_as_poison() -> None:
    """No retry is charged, but losses are bounded all the same."""
    core = Core(lost_attempts_max=3)
    core.engine("e")
    job_id = core.submit()
    for _ in range(3):
        core.fail(core.must_ask("e"), FailureClass.LOST, message="killed")
    assert core.job(job_id).status is JobStatus.FAILED_PERMANENTLY
    assert (core.job(job_id).error_message or "").startswith("Poison")


@pytest.mark.parametrize("contact", ["complete", "progress", "release", "heartbeat"])
def test_an_engine_that_reported_an_attempt_as_lost_does_not_get_it_back(contact: str) -> None:
    """The first terminal report counts: the contradiction is refused and changes nothing."""
    core = Core()
    core.engine("e")
    core.submit()
    job = core.must_ask("e")
    first = core.fail(job, FailureClass.LOST, message="killed")
    before = dict(core.disk["jobs"]), dict(core.disk["attempts"])
    if contact == "heartbeat":
        assert core.heartbeat_verdicts("e", (job.job_id, job.attempt)) == ["cancel"]
    else:
        with pytest.raises(Conflict):
            getattr(core, contact)(job)
    assert (core.disk["jobs"], core.disk["attempts"]) == before
    assert core.fail(job, FailureClass.LOST, message="killed") == first


def test_an_engine_cannot_cancel_a_job() -> None:
    """Only a person can; from an engine this class counts as a failure of its own."""
    core = Core()
    core.engine("e")
    job_id = core.submit(max_retries=0)
    core.fail(core.must_ask("e"), FailureClass.CANCELLED)
    assert core.job(job_id).status is JobStatus.FAILED_PERMANENTLY
