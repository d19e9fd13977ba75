"""Check that `why` gives one sentence for each cause."""

from collections.abc import Callable

import msgspec
import pytest
from tests.core.kit import Core

from distconvd.dispatch.why import why_ended
from distconvd.model import FailureClass, Job, JobResult, JobStatus


def no_engine(core: Core) -> None:
    """No engine has registered."""


def no_codec(core: Core) -> None:
    """No engine supports the codec."""
    core.engine("E1", supported_codecs=["vp9"])


def no_tags(core: Core) -> None:
    """No engine has the tag."""
    core.engine("E1")


def no_benchmark(core: Core) -> None:
    """The only engine has no benchmark, and has not asked."""
    core.engine("E1", None, tags=["gpu"])


def none_free(core: Core) -> None:
    """One is offline, one busy, one drains."""
    core.engine("E0", tags=["gpu"])
    core.sleep(61)
    core.engine("E1", tags=["gpu"])
    core.engine("E2", tags=["gpu"])
    core.beat("E1", status="busy")
    core.drain("E2")


def first_in_queue(core: Core) -> None:
    """One could take it, but has not asked."""
    core.engine("E1", tags=["gpu"])


CAUSES: dict[Callable[[Core], None], str] = {
    no_engine: "No engine has registered yet.",
    no_codec: "No registered engine supports the codec h264.",
    no_tags: "No engine that supports h264 has the tag gpu.",
    no_benchmark: "No engine that could take it has a benchmark yet.",
    none_free: ("No engine that can take it is free: 1 is busy, 1 is draining, 1 is offline."),
    first_in_queue: (
        "It is first in the queue; an idle engine can take it but has not asked for work yet."
    ),
}


@pytest.mark.parametrize("cause", CAUSES, ids=lambda f: f.__name__)
def test_why_names_what_a_waiting_job_waits_for(cause: Callable[[Core], None]) -> None:
    """In one sentence."""
    core = Core()
    cause(core)
    job_id = core.submit(requires=["gpu"])
    assert core.why(job_id) == CAUSES[cause]


def test_why_says_how_many_come_before() -> None:
    """Among those that the same engines can take."""
    core = Core()
    core.engine("E1")
    core.submit(codec="vp9")
    core.submit()
    core.submit()
    last = core.submit()
    assert core.why(last) == "2 jobs that the same engines can take come before it."
    core.patch(last, priority=2)
    assert core.why(last).startswith("It is first in the queue")


def test_why_says_that_engines_do_not_ask_for_work() -> None:
    """The reservation of the only free engine expired."""
    core = Core()
    core.engine("E1", 5.0)
    core.engine("E2", 9.0)
    core.submit(1.0)
    core.ask("E1")
    core.sleep(16)
    core.must_ask("E1")
    job_id = core.submit(1.0)
    assert core.why(job_id) == (
        "No engine that can take it is free: 1 is busy, 1 is not asking for work."
    )


def test_why_says_what_a_damaged_source_has_lost() -> None:
    losses = [f"video #0 (h264): 1 frame from {n}.00 s on" for n in range(12)]
    job = Job("1_1", "file:///a", "h264", status=JobStatus.COMPLETED, output_url="file:///o")
    job = msgspec.structs.replace(job, result=JobResult(damage=losses))
    summary = why_ended(job).summary
    assert summary.startswith(
        f"It is done: file:///o. Its source is damaged, and this is lost: {losses[0]}; "
    )
    assert losses[9] in summary
    assert losses[10] not in summary
    assert summary.endswith("; and 2 more.")


def test_why_gives_the_reason_of_an_assignment_and_of_each_end() -> None:
    """Which engine has it and why, how it ended and how to start it again."""
    core = Core()
    core.engine("E1", 5.0)
    job_id = core.submit(60.0)
    job = core.must_ask("E1")
    assert core.why(job_id) == (
        "It is assigned to engine E1: a medium job goes to the fastest idle engine (benchmark 5 s)."
    )
    core.complete(job)
    assert core.why(job_id) == "It is done: file:///out.mp4."
    core.restart(job_id)
    core.fail(core.must_ask("E1"), FailureClass.INPUT, message="no video in it")
    assert "It failed after 2 attempts (input): no video in it" in core.why(job_id)
    core.restart(job_id)
    core.cancel(job_id)
    assert core.why(job_id).startswith("Somebody cancelled it")


def test_why_of_a_waiting_job_waits_for_all_that_is_in_flight() -> None:
    """It depends on the engines and the queue."""
    core = Core()
    core.why(core.submit())
    assert core.decisions[-1].reads_all
