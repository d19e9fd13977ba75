"""Check what heartbeats change, and what draining, resuming and removing an engine does."""

from typing import Any

import msgspec
import pytest
from tests.core.kit import Core, check_invariants

from distconvd.dispatch import engines
from distconvd.dispatch.queries import list_engines
from distconvd.errors import NotFound, Unavailable
from distconvd.model import BenchmarkReport, Heartbeat, JobStatus


def test_the_first_heartbeat_registers_and_a_later_one_merges() -> None:
    """What it does not mention stays; a benchmark that was sent separately is not forgotten."""
    core = Core()
    core.beat("E1", supported_codecs=["h264"], storage_capacity_gb=5.0, hostname="box")
    core.benchmark("E1", 7.0, h264=6.0)
    reply = core.beat("E1", streaming_support=True, free_gb=3.0)
    assert reply.message == "Heartbeat received from engine E1"
    assert reply.lease_s == 60.0
    view = core.view("E1")
    assert view["supported_codecs"] == ["h264"]
    assert (view["storage_capacity_gb"], view["hostname"]) == (5.0, "box")
    assert (view["benchmark_time"], view["benchmarks"]) == (7.0, {"h264": 6.0})
    assert (view["streaming_support"], view["free_gb"]) == (True, 3.0)
    assert core.published_count("engine.registered") == 1


def test_a_heartbeat_that_reports_nothing_new_costs_no_disk() -> None:
    """Momentary figures are never stored."""
    core = Core()
    core.engine("E1")
    core.beat("E1", status="idle", free_gb=1.0, cpu_percent=50.0)
    assert not core.decisions[-1].changes
    assert not core.decisions[-1].events
    core.beat("E1", status="busy")
    assert len(core.decisions[-1].changes) == 1


def test_unknown_fields_are_shown_and_cannot_shadow_known_ones() -> None:
    """The original's `encoders` and such."""
    core = Core()
    core.run(engines.heartbeat, Heartbeat("E1"), {"encoders": ["x"], "slots": 99})
    assert core.view("E1")["encoders"] == ["x"]
    assert core.view("E1")["slots"] == 1


def test_an_engine_cannot_replace_what_the_daemon_says_of_it() -> None:
    core = Core()
    core.engine("E1")
    before = core.view("E1")
    forged: dict[str, Any] = {
        "last_seen_at": 9e15,
        "reserved": 1,
        "reported_status": "x",
        "jobs": 2,
    }
    core.run(engines.heartbeat, Heartbeat("E1"), forged)
    assert core.view("E1") == before


def test_a_benchmark_of_an_unknown_engine_is_refused() -> None:
    """There is nothing to merge it into."""
    with pytest.raises(NotFound):
        Core().benchmark("ghost", 1.0)


def test_a_request_to_measure_again_stays_until_a_benchmark_answers_it() -> None:
    """It outlasts a restart, asking twice is asking once, and other benchmarks do not end it."""
    core = Core()
    core.engine("E1")
    assert core.beat("E1").benchmark_requested_at is msgspec.UNSET
    core.run(engines.ask_for_benchmark, "E1")
    asked_at = core.view("E1")["benchmark_requested_at"]
    assert asked_at == core.wall_ms
    core.sleep(5)
    core.run(engines.ask_for_benchmark, "E1")
    assert not core.decisions[-1].changes
    core.reload()
    assert core.beat("E1").benchmark_requested_at == asked_at
    core.benchmark("E1", 7.0)
    core.run(engines.benchmark, BenchmarkReport("E1", 7.0, requested_at=asked_at - 1))
    assert core.beat("E1").benchmark_requested_at == asked_at
    core.run(engines.benchmark, BenchmarkReport("E1", 7.0, requested_at=asked_at))
    assert core.beat("E1").benchmark_requested_at is msgspec.UNSET
    assert core.view("E1")["benchmark_requested_at"] is None


def test_engines_beyond_the_limit_are_refused_and_known_ones_are_not() -> None:
    """The answer says what to do."""
    core = Core(engines_max=1)
    core.engine("E1")
    with pytest.raises(Unavailable, match="DELETE"):
        core.engine("E2")
    core.engine("E1")


def test_a_silent_engine_is_offline_until_its_next_heartbeat() -> None:
    """An event is published once for each change."""
    core = Core(engine_timeout_s=30, start_grace_s=0)
    core.engine("E1")
    core.sleep(29)
    assert core.view("E1")["status"] == "idle"
    core.sleep(1.1)
    assert core.view("E1")["status"] == "offline"
    core.sleep(500)
    core.submit()
    assert core.ask("E1") is None
    core.beat("E1")
    assert core.view("E1")["status"] == "idle"
    assert (core.published_count("engine.offline"), core.published_count("engine.online")) == (1, 1)
    core.must_ask("E1")


def test_a_draining_engine_finishes_its_attempts_and_gets_nothing_new() -> None:
    """The heartbeat's reply says so; it survives a restart; resume ends it."""
    core = Core()
    core.engine("E1", slots=2)
    core.submit()
    core.submit()
    job = core.must_ask("E1")
    core.drain("E1")
    assert core.beat("E1").state == "draining"
    assert core.ask("E1") is None or core.must_ask("E1") == job
    core.reload()
    assert core.heartbeat_verdicts("E1", (job.job_id, 1)) == ["keep"]
    assert core.ask("E1") is None
    core.complete(job)
    assert core.ask("E1") is None
    core.drain("E1", draining=False)
    assert core.must_ask("E1").job_id != job.job_id


def test_removing_an_engine_loses_its_attempts_and_lets_it_register_again() -> None:
    """Its jobs go to others, at no cost to them."""
    core = Core()
    core.engine("E1")
    core.submit()
    job = core.must_ask("E1")
    core.remove("E1")
    check_invariants(core.dispatcher)
    waiting = core.job(job.job_id)
    assert (waiting.status, waiting.retries) == (JobStatus.PENDING, 0)
    assert "was removed" in (waiting.error_message or "")
    for call in (core.view, core.remove, core.drain, core.ask):
        with pytest.raises(NotFound):
            call("E1")
    core.engine("E1")
    assert core.must_ask("E1").attempt == 2


def test_an_engine_never_has_more_jobs_than_slots() -> None:
    """However often it asks, and also when it reduces its slots."""
    core = Core()
    core.engine("E1", slots=3)
    for _ in range(9):
        core.submit()
    got = {core.must_ask("E1").job_id for _ in range(9)}
    assert len(got) == 3
    core.beat("E1", slots=1)
    jobs = core.view("E1")["jobs"]
    for job_id in jobs[:2]:
        core.complete(core.job(job_id))
        core.ask("E1")
        assert set(core.view("E1")["jobs"]) < got
    assert core.view("E1")["status"] == "busy"
    core.complete(core.job(jobs[2]))
    assert core.must_ask("E1").job_id not in got


def test_engines_are_listed_by_id() -> None:
    """As on the wire."""
    core = Core()
    for engine_id in ("b", "a", "c"):
        core.engine(engine_id)
    views = [msgspec.json.decode(view) for view in core.run(list_engines)]
    assert [view["engine_id"] for view in views] == ["a", "b", "c"]
    assert core.decisions[-1].reads_all
