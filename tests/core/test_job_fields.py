"""Each field of a job is identity, submitted or of one run, and is kept or reset accordingly."""

from collections import Counter
from typing import Any, get_args

import msgspec
from tests.core.kit import START_MS, Core, empty_disk

from distconvd.dispatch.records import encode
from distconvd.model import (
    IDENTITY_FIELDS,
    PER_ATTEMPT_FIELDS,
    PER_RUN_FIELDS,
    SUBMITTED_FIELDS,
    FailureClass,
    Job,
    JobResult,
    JobStatus,
    Output,
    Progress,
    Submission,
    TranscodeOptions,
)

VALUES: dict[Any, Any] = {
    str: "x",
    int: 7,
    float: 7.0,
    bool: True,
    JobStatus: JobStatus.COMPLETED,
    FailureClass: FailureClass.ENGINE,
    Progress: Progress(0.5),
    TranscodeOptions: TranscodeOptions(crf=7),
    Output: Output(name="x"),
    JobResult: JobResult(size_bytes=7),
    dict[str, str]: {"x": "y"},
    list[str]: ["x"],
}
"""For each type a value that no field has by default."""
JOB_ID = "1704067200123456_0"


def used_job(**fields: Any) -> Job:
    """Return a job of which every field differs from its default, but for `fields`."""
    kinds = {field.name: field.type for field in msgspec.structs.fields(Job)}
    values: dict[str, Any] = {
        name: next(VALUES[k] for k in (kind, *get_args(kind)) if k in VALUES)
        for name, kind in kinds.items()
    }
    stamps: dict[str, Any] = {"created_at": START_MS, "updated_at": START_MS}
    given: dict[str, Any] = values | {"job_id": JOB_ID} | stamps | fields
    return Job(**given)


def core_with(job: Job) -> Core:
    disk = empty_disk()
    disk["jobs"][job.job_id] = encode(job)
    return Core(disk=disk)


def values_of(job: Job, names: frozenset[str]) -> dict[str, Any]:
    return {name: getattr(job, name) for name in names}


def test_each_field_is_of_exactly_one_kind() -> None:
    """A new field fails here until somebody has decided."""
    kinds = Counter((*IDENTITY_FIELDS, *SUBMITTED_FIELDS, *PER_RUN_FIELDS))
    assert kinds == Counter(Job.__struct_fields__)


def test_a_submission_gives_what_was_submitted_and_when_its_first_run_may_begin() -> None:
    assert set(Submission.__struct_fields__) == SUBMITTED_FIELDS | {"not_before"}


def test_what_an_attempt_resets_belongs_to_the_run() -> None:
    assert PER_ATTEMPT_FIELDS < PER_RUN_FIELDS


def test_a_job_that_starts_again_keeps_what_was_submitted_and_nothing_of_its_last_run() -> None:
    job = used_job()
    core = core_with(job)
    core.sleep(1)
    again = core.restart(JOB_ID)
    fresh = Job(JOB_ID, job.source_url, job.target_codec, base_attempt=job.attempt)
    assert values_of(again, PER_RUN_FIELDS) == values_of(fresh, PER_RUN_FIELDS)
    kept = SUBMITTED_FIELDS | (IDENTITY_FIELDS - {"updated_at"})
    assert values_of(again, kept) == values_of(job, kept)


def test_an_attempt_begins_and_resumes_without_what_was_left_of_the_wait_for_it() -> None:
    waits: dict[str, Any] = {
        "status": JobStatus.PENDING,
        "paused": False,
        "requires": [],
        "not_before": START_MS,
    }
    core = core_with(used_job(target_codec="h264", assigned_engine=None, **waits))
    core.engine("E1", capabilities=["x"])
    begun = core.must_ask("E1")
    fresh = values_of(Job("", "", ""), PER_ATTEMPT_FIELDS)
    assert values_of(begun, PER_ATTEMPT_FIELDS) == fresh
    core.sleep(61)
    assert core.job(JOB_ID).error_class is FailureClass.LOST
    core.beat("E1", local_job_queue=[JOB_ID])
    resumed = core.job(JOB_ID)
    assert (resumed.status, resumed.attempt) == (JobStatus.ASSIGNED, begun.attempt)
    assert values_of(resumed, PER_ATTEMPT_FIELDS) == fresh
