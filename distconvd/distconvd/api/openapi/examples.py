"""Provide example records for the API documents: one film on its way through the daemon."""

from distconvd.model import (
    Attempt,
    AttemptOutcome,
    FailureClass,
    HeldJob,
    Job,
    JobResult,
    JobStatus,
    ReportedProgress,
    ReportedResult,
    TranscodeOptions,
    Verdict,
)

JOB_ID = "1704067200123456_0"
ENGINE_ID = "engine-001"
ETAG = '"3ca383afa1a5ffe3"'

PENDING = Job(
    JOB_ID,
    "http://example.com/input.mp4",
    "h264",
    100.5,
    created_at=1704067200123,
    updated_at=1704067200123,
    options=TranscodeOptions(crf=23),
)
ASSIGNED = Job(
    JOB_ID,
    "http://example.com/input.mp4",
    "h264",
    100.5,
    JobStatus.ASSIGNED,
    ENGINE_ID,
    created_at=1704067200123,
    updated_at=1704067201000,
    started_at=1704067201000,
    attempt=1,
    options=TranscodeOptions(crf=23),
    placement="a large job goes to the fastest idle engine that streams (benchmark 125.5 s)",
)
RESULT = JobResult(size_bytes=61_000_000, video_frames=7200, duration_s=300.0)
REPORTED_RESULT = ReportedResult(size_bytes=61_000_000, video_frames=7200, duration_s=300.0)
COMPLETED = Job(
    JOB_ID,
    "http://example.com/input.mp4",
    "h264",
    100.5,
    JobStatus.COMPLETED,
    ENGINE_ID,
    "http://example.com/output.mp4",
    created_at=1704067200123,
    updated_at=1704067501000,
    started_at=1704067201000,
    finished_at=1704067501000,
    attempt=1,
    options=TranscodeOptions(crf=23),
    result=RESULT,
)
ACTIVE = HeldJob(JOB_ID, 1, ReportedProgress(0.5, phase="encode"))
KEEP = Verdict(JOB_ID, 1, "keep")
ATTEMPT = Attempt(
    1,
    ENGINE_ID,
    1704067201000,
    1704067202000,
    AttemptOutcome.FAILED,
    FailureClass.ENGINE,
    "Transcoding failed due to codec incompatibility",
    requeued=True,
)
