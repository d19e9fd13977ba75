"""Check that a job whose source needs a capability waits for an engine that has it."""

from typing import Any

import pytest
from tests.core.kit import Core, check_invariants

from distconvd.model import CAPABILITIES, Capability, FailureClass, JobStatus
from distconvd.policy import EngineInfo

INCAPABLE = FailureClass.INCAPABLE
ALL = list(Capability)
ZLIB = Capability.ZLIB_TRACKS
REST = [name for name in ALL if name != ZLIB]


def probed_by_incapable(core: Core, **fields: Any) -> str:
    """Submit a job that an engine without `zlib-tracks` has probed."""
    core.engine("weak", 1.0, capabilities=REST)
    job_id = core.submit(**fields)
    core.fail(core.must_ask("weak"), INCAPABLE, message="no zlib here", needs=[ZLIB])
    return job_id


def test_the_job_goes_to_an_engine_that_has_the_capability() -> None:
    core = Core()
    job_id = probed_by_incapable(core)
    core.engine("old")  # it never reported any
    core.engine("able", 99.0, capabilities=ALL)
    assert core.ask("weak") is None
    assert core.ask("old") is None
    assert core.must_ask("able").job_id == job_id
    check_invariants(core.dispatcher)


@pytest.mark.parametrize("max_retries", [0, 3])
def test_it_costs_no_retry_no_wait_and_no_quarantine(max_retries: int) -> None:
    core = Core(quarantine_after=1)
    job_id = probed_by_incapable(core, max_retries=max_retries)
    job = core.job(job_id)
    assert (job.status, job.retries, job.not_before) == (JobStatus.PENDING, 0, None)
    assert core.dispatcher.state.engine("weak").record.failed_jobs == []
    core.submit()
    assert core.must_ask("weak").job_id != job_id  # it takes what it can


def test_what_the_source_needs_stays_known_until_a_person_starts_the_job_again() -> None:
    core = Core()
    job_id = probed_by_incapable(core)
    core.reload()
    core.engine("able", capabilities=ALL)
    assert core.job(job_id).needs == [ZLIB]
    core.fail(core.must_ask("able"), FailureClass.INPUT)
    core.restart(job_id)
    assert core.job(job_id).needs == []


def test_an_engine_that_gets_the_capability_takes_the_job() -> None:
    core = Core()
    job_id = probed_by_incapable(core)
    core.engine("weak", capabilities=ALL)
    assert core.must_ask("weak").job_id == job_id


def test_without_such_an_engine_why_names_the_capability_and_says_what_it_is() -> None:
    core = Core()
    job_id = probed_by_incapable(core)
    assert core.why(job_id) == (
        f"No engine that could take it can convert this source: it needs the capability"
        f" zlib-tracks ({CAPABILITIES[ZLIB]}). distconv engines shows what each engine lacks."
    )


def test_a_capability_of_a_newer_version_is_named_only() -> None:
    core = Core()
    core.engine("weak", capabilities=[])
    job_id = core.submit()
    core.fail(core.must_ask("weak"), INCAPABLE, needs=["hologram"])
    assert "it needs the capability hologram. " in core.why(job_id)


def test_only_an_incapable_engine_says_what_the_source_needs() -> None:
    core = Core()
    core.engine("weak")
    job_id = core.submit()
    core.fail(core.must_ask("weak"), FailureClass.TRANSIENT, needs=[ZLIB])
    assert core.job(job_id).needs == []


def test_engines_that_contradict_each_other_cannot_keep_a_job_for_ever() -> None:
    core = Core(retry_backoff_s=0, retry_elsewhere_s=0, transient_attempts_max=3)
    core.engine("liar", capabilities=ALL)
    job_id = core.submit(max_retries=1)
    for _ in range(5):
        core.fail(core.must_ask("liar"), INCAPABLE, needs=[ZLIB])
    assert core.job(job_id).status is JobStatus.FAILED_PERMANENTLY


def test_policies_see_tags_without_capabilities() -> None:
    core = Core()
    core.engine("E1", tags=["gpu"], capabilities=ALL)
    info = core.dispatcher.state.engine("E1").info("h264")
    assert isinstance(info, EngineInfo)
    assert info.tags == frozenset({"gpu"})
