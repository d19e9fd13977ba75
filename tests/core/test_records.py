"""Load records of any origin: the original's nine fields, odd engines, unreadable bytes."""

import json
from typing import Any

import pytest
from tests.core.kit import START_MS, Core, check_invariants, empty_disk

from distconvd.dispatch.records import encode, normalize_engine, normalize_job
from distconvd.model import JobStatus
from distconvd.store import Table

JOB_ID = f"{START_MS * 1000}_7"
NINE: dict[str, Any] = {
    "job_id": JOB_ID,
    "source_url": "http://x/y.mp4",
    "target_codec": "h264",
    "job_size": 75.0,
    "status": "pending",
    "assigned_engine": None,
    "output_url": None,
    "retries": 1,
    "max_retries": 3,
}


def core_with(table: Table, key: str, record: "dict[str, Any] | bytes") -> Core:
    """Return a core that starts on a disk with this record."""
    disk = empty_disk()
    disk[table][key] = record if isinstance(record, bytes) else json.dumps(record).encode()
    return Core(disk=disk)


def test_a_job_of_the_original_is_normalized_with_our_fields_at_their_defaults() -> None:
    """Its age is in its id; the next load finds it in our format."""
    core = core_with("jobs", JOB_ID, NINE)
    job = core.job(JOB_ID)
    assert (job.status, job.retries, job.job_size) == (JobStatus.PENDING, 1, 75.0)
    assert (job.created_at, job.updated_at, job.attempt) == (START_MS, START_MS, 0)
    assert [c.key for c in core.dispatcher.normalized] == [JOB_ID]
    core.reload()
    assert not core.dispatcher.normalized
    core.engine("E1")
    assert core.must_ask("E1").job_id == JOB_ID
    check_invariants(core.dispatcher)


@pytest.mark.parametrize("status", list(JobStatus))
def test_a_job_of_the_original_keeps_its_status(status: JobStatus) -> None:
    """One that is assigned goes on; its engine is known by name only."""
    core = core_with("jobs", JOB_ID, NINE | {"status": status.value, "assigned_engine": "old"})
    check_invariants(core.dispatcher)
    assert core.job(JOB_ID).status is status
    core.sleep(61)
    lost = status is JobStatus.ASSIGNED
    assert core.job(JOB_ID).status is (JobStatus.PENDING if lost else status)
    check_invariants(core.dispatcher)


def test_the_lease_of_an_assigned_job_of_the_original_is_renewed_by_its_engine() -> None:
    """The engine registers after the start, and reports without an attempt number."""
    core = core_with("jobs", JOB_ID, NINE | {"status": "assigned", "assigned_engine": "old"})
    core.sleep(50)
    core.engine("old")
    assert core.view("old")["jobs"] == [JOB_ID]
    core.sleep(50)
    job = core.job(JOB_ID)
    assert job.status is JobStatus.ASSIGNED
    core.complete(job, attempt=None, engine_id=None)
    assert core.job(JOB_ID).assigned_engine == "old"


GARBAGE = [
    ("job_size", "big"),
    ("job_size", None),
    ("retries", "1"),
    ("retries", 1.5),
    ("max_retries", None),
    ("assigned_engine", 5),
    ("labels", {"a": 1}),
    ("requires", "gpu"),
    ("options", {"crf": "x"}),
    ("progress", "half"),
    ("priority", 10**30),
    ("created_at", "yesterday"),
    ("job_id", 5),
    ("what", {"deep": [1, 2]}),
]


@pytest.mark.parametrize("field, value", GARBAGE, ids=str)
def test_an_unreadable_field_is_dropped_and_the_job_is_kept(field: str, value: object) -> None:
    """Whatever the field contains, the job can run."""
    core = core_with("jobs", JOB_ID, NINE | {field: value})
    job = core.job(JOB_ID)
    assert (job.source_url, job.status) == ("http://x/y.mp4", JobStatus.PENDING)
    core.engine("E1", tags=["gpu"])
    core.complete(core.must_ask("E1"))
    check_invariants(core.dispatcher)


@pytest.mark.parametrize("status", ["running", "done", 7, None])
def test_a_job_whose_status_cannot_be_read_is_not_run_again_by_itself(status: object) -> None:
    """It may be done already; and the original record is kept."""
    core = core_with("jobs", JOB_ID, NINE | {"status": status})
    job = core.job(JOB_ID)
    assert job.status is JobStatus.FAILED_PERMANENTLY
    assert repr(status) in (job.error_message or "")
    core.engine("E1")
    assert core.ask("E1") is None
    kept = {change.key: change.record for change in core.dispatcher.normalized}
    assert json.loads(kept[f"as_found:jobs/{JOB_ID}"] or b"")["status"] == status
    check_invariants(core.dispatcher)


HOPELESS = [
    b"",
    b"null",
    b"7",
    b"[]",
    b'"text"',
    b"{",
    b"\xff\xfe",
    b'{"source_url": "\xff", "target_codec": "h264"}',
    b'{"source_url": "http://x/y"}',
    b'{"target_codec": "h264"}',
    b'{"source_url": 5, "target_codec": "h264"}',
    b'{"source_url": "http://x/y", "target_codec": ["h264"]}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
]


@pytest.mark.parametrize("record", HOPELESS, ids=lambda r: repr(r[:20]))
def test_an_unreadable_job_record_is_logged_and_skipped_and_the_daemon_starts(
    record: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The other records are loaded."""
    disk = empty_disk()
    disk["jobs"][JOB_ID] = record
    disk["jobs"]["1_1"] = encode(NINE)
    core = Core(disk=disk)
    assert list(core.dispatcher.state.jobs) == ["1_1"]
    assert f"{JOB_ID!r} cannot be read" in caplog.text
    check_invariants(core.dispatcher)


def test_a_job_has_its_key_as_its_id_whatever_its_record_says() -> None:
    """The original stores its jobs under their ids."""
    core = core_with("jobs", "custom", NINE | {"job_id": "another"})
    assert core.job("custom").job_id == "custom"
    assert core.job("custom").created_at == 0
    core.engine("E1")
    assert core.must_ask("E1").job_id == "custom"


ODD_ENGINES: list[dict[str, Any]] = [
    {},
    {"engine_id": "E1"},
    {"engine_id": 5, "supported_codecs": ["h264"]},
    {"engine_id": "E1", "supported_codecs": "h264", "status": 3, "benchmark_time": "fast"},
    {"engine_id": "E1", "slots": "two", "tags": None, "streaming_support": "yes"},
    {"engine_id": "E1", "slots": 0, "quarantined_until": 5},
    {"engine_id": "E1", "slots": -3, "failed_jobs": [1]},
    {"engine_id": "other", "benchmark_time": -5, "benchmarks": {"h264": None}},
    {"engine_id": "E1", "benchmark_time": 1e308, "local_job_queue": ["x"], "encoders": [1]},
]


@pytest.mark.parametrize("record", ODD_ENGINES, ids=str)
def test_an_engine_record_of_any_shape_is_normalized_and_the_engine_can_register_again(
    record: dict[str, Any],
) -> None:
    """Its next heartbeat corrects it."""
    core = core_with("engines", "E1", record)
    check_invariants(core.dispatcher)
    assert core.view("E1")["engine_id"] == "E1"
    core.reload()
    assert not core.dispatcher.normalized
    core.sleep(1)
    core.engine("E1", slots=1)
    core.submit()
    core.must_ask("E1")
    check_invariants(core.dispatcher)


@pytest.mark.parametrize("record", [b"", b"[]", b"{", b'{"engine_id":"\xff"}', b"[" * 100_000])
def test_an_unreadable_engine_record_is_skipped_and_the_daemon_starts(record: bytes) -> None:
    """The engine registers again."""
    core = core_with("engines", "E1", record)
    assert not core.dispatcher.state.engines
    core.engine("E1")
    assert core.view("E1")["status"] == "idle"


@pytest.mark.parametrize("record", [b"", b"[]", b'{"attempts": 7}', b'{"job_id": "\xff"}'])
def test_a_history_that_cannot_be_read_does_not_stop_its_job(record: bytes) -> None:
    """The history starts again."""
    disk = empty_disk()
    disk["jobs"][JOB_ID] = encode(NINE)
    disk["attempts"][JOB_ID] = record
    core = Core(disk=disk)
    core.engine("E1")
    core.fail(core.must_ask("E1"))
    assert core.outcomes(JOB_ID) == ["failed"]


def test_a_record_of_ours_is_loaded_unchanged_byte_for_byte() -> None:
    """So that loading writes nothing."""
    core = Core()
    core.engine("E1")
    job_id = core.submit(labels={"a": "b"}, requires=[])
    data = core.disk["jobs"][job_id]
    found = normalize_job(job_id, data)
    assert found is not None
    assert found[1] is data
    engine = normalize_engine("E1", core.disk["engines"]["E1"])
    assert engine is not None
    assert engine[1] is core.disk["engines"]["E1"]
