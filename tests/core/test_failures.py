"""The table of failure classes is whole, and decides whose report of a class is believed."""

import pytest
from tests.core.kit import Core

from distconvd.model import FAILURES, AttemptOutcome, FailureClass, Reporter


def test_every_class_has_its_row() -> None:
    assert list(FAILURES) == list(FailureClass)


@pytest.mark.parametrize("kind", FailureClass)
@pytest.mark.parametrize("numbered", [True, False])
def test_a_report_counts_as_its_class_where_the_table_believes_its_reporter(
    kind: FailureClass, numbered: bool
) -> None:
    """Otherwise it is an engine's failure."""
    core = Core()
    core.engine("E1")
    core.submit(max_retries=9)
    job = core.must_ask("E1")
    core.fail(job, kind, attempt=job.attempt if numbered else None)
    ended = core.attempts(job.job_id)[-1]
    reporter = FAILURES[kind].reporter
    is_believed = reporter is Reporter.ENGINE or (numbered and reporter is Reporter.NUMBERED_ENGINE)
    assert ended.error_class is (kind if is_believed else FailureClass.ENGINE)
    assert ended.outcome is (FAILURES[kind].outcome if is_believed else AttemptOutcome.FAILED)


@pytest.mark.parametrize("kind", [k for k, row in FAILURES.items() if row.quarantines])
def test_a_class_that_the_table_marks_quarantines_its_engine(kind: FailureClass) -> None:
    core = Core(quarantine_after=1)
    core.engine("E1")
    core.submit()
    core.fail(core.must_ask("E1"), kind)
    assert core.view("E1")["status"] == "quarantined"


def test_every_class_that_engines_report_ends_at_some_point() -> None:
    """By the job's retries, or by the limit of lost engines."""
    for kind in FailureClass:
        core = Core(retry_backoff_s=0, retry_elsewhere_s=0, quarantine_after=0)
        core.engine("E1")
        job_id = core.submit(max_retries=2)
        for n in range(100):
            job = core.ask("E1")
            if job is None:
                break
            core.fail(job, kind, message=f"no {n}")
        assert core.job(job_id).status == "failed_permanently", kind
