"""The engine's failures are the classes of the shared table."""

import pytest

from distconv_engine import failures
from distconv_engine.failures import JobFailure
from distconvd.model import FAILURES, FailureClass, Reporter


def test_every_class_that_any_report_may_name_has_its_exception() -> None:
    """`lost` has none: the engine reports it after it was killed."""
    raised = {
        kind.error_class
        for kind in vars(failures).values()
        if isinstance(kind, type) and issubclass(kind, JobFailure)
    }
    assert raised == {name for name, row in FAILURES.items() if row.reporter is Reporter.ENGINE}


def test_a_class_that_only_the_daemon_gives_is_no_failure_of_an_engine() -> None:
    with pytest.raises(TypeError, match="no engine reports"):
        type("Cancelled", (JobFailure,), {"error_class": FailureClass.CANCELLED})
