"""`why`: one sentence for each cause."""

from collections.abc import Callable

import pytest
from tests.core.kit import Core

from distconvd.model import FailureClass


def no_engine(core: Core) -> None:
    """Nobody registered."""


def no_codec(core: Core) -> None:
    """Nobody lists the codec."""
    core.engine("E1", supported_codecs=["vp9"])


def no_tags(core: Core) -> None:
    """Nobody has the tag."""
    core.engine("E1")


def no_benchmark(core: Core) -> None:
    """The only one has no benchmark, and nobody asked."""
    core.engine("E1", None, tags=["gpu"])


def none_free(core: Core) -> None:
    """One is offline, one busy, one drains."""
    core.engine("E0", tags=["gpu"])
    core.sleep(61)
    core.engine("E1", tags=["gpu"])
    core.engine("E2", tags=["gpu"])
    core.beat("E1", status="busy")
    core.drain("E2")


def next_in_line(core: Core) -> None:
    """One could have it."""
    core.engine("E1", tags=["gpu"])


CAUSES: dict[Callable[[Core], None], str] = {
    no_engine: "No engine has registered yet.",
    no_codec: "None of the 1 engines lists the codec h264.",
    no_tags: "No engine that lists h264 has the tags gpu.",
    no_benchmark: "The engines that could take it have no benchmark yet.",
    none_free: "Of 3 engines that can take it none is free: 1 busy, 1 draining, 1 offline.",
    next_in_line: "It is next in line; an idle engine can take it, and none has asked for work yet.",
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
    assert core.why(last).startswith("It is next in line")


def test_why_says_that_engines_do_not_collect() -> None:
    """The only engine let its reservation lapse."""
    core = Core()
    core.engine("E1", 5.0)
    core.engine("E2", 9.0)
    core.submit(1.0)
    core.ask("E1")
    core.sleep(16)
    core.must_ask("E1")
    job_id = core.submit(1.0)
    assert core.why(job_id) == (
        "Of 2 engines that can take it none is free: 1 busy, 1 not collecting its jobs."
    )


def test_why_gives_the_reason_of_an_assignment_and_of_each_end() -> None:
    """Who has it and why that one, what became of it and how to start it again."""
    core = Core()
    core.engine("E1", 5.0)
    job_id = core.submit(60.0)
    job = core.must_ask("E1")
    assert core.why(job_id) == (
        "Engine E1 has it: a medium job goes to the fastest idle engine (benchmark 5 s)."
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
    """It shows engines and the line."""
    core = Core()
    core.why(core.submit())
    assert core.decisions[-1].reads_all
