"""Define what clients and engines send and what the daemon answers: one struct a message.

Unknown fields are ignored, as the original does (`?strict=true` refuses them on a submission).
What is sent to the daemon has its bounds in its types, see `model.bounds`; URLs, and rules for
several fields, are checked in `distconvd.api.validate`.
"""

from typing import Annotated, Literal

import msgspec

from distconvd.model.bounds import (
    Amount,
    AttemptNumber,
    BenchmarkTime,
    ByCodec,
    Capacity,
    CodecNames,
    EngineId,
    Flag,
    JobId,
    JobIds,
    JobSize,
    Labels,
    MaxRetries,
    Phase,
    Priority,
    ReportedUrl,
    ResultCount,
    ResultList,
    ResultNumber,
    ResultText,
    Sha256,
    ShortText,
    Slots,
    SourceUrl,
    Tags,
    TargetCodec,
    TimeMs,
)
from distconvd.model.failure import FailureClass
from distconvd.model.job import (
    Job,
    JobResult,
    Output,
    Progress,
    TranscodeOptions,
)
from distconvd.model.limits import Limits


class Submission(msgspec.Struct, frozen=True):
    """`POST /jobs/`: a new job."""

    source_url: SourceUrl
    target_codec: TargetCodec
    job_size: JobSize = 0.0
    max_retries: MaxRetries = 3
    priority: Priority = 0
    labels: Labels = {}
    requires: Tags = []
    options: TranscodeOptions = TranscodeOptions()
    output: Output | None = None
    source_sha256: Sha256 | None = None
    not_before: TimeMs | None = None


class JobPatch(msgspec.Struct, frozen=True):
    """`PATCH /jobs/{id}`: what may change while a job has not ended. UNSET fields do not."""

    priority: Priority | msgspec.UnsetType = msgspec.UNSET
    labels: Labels | msgspec.UnsetType = msgspec.UNSET
    not_before: TimeMs | None | msgspec.UnsetType = msgspec.UNSET
    paused: bool | msgspec.UnsetType = msgspec.UNSET


class ReportedProgress(Progress, frozen=True):
    """Progress as an engine sends it: the same fields, with bounds."""

    fraction: Amount = 0.0
    fps: Amount | None = None
    speed: Amount | None = None
    eta_seconds: Amount | None = None
    phase: Phase = "queued"


class HeldJob(msgspec.Struct, frozen=True):
    """One active attempt, as an engine names it in a heartbeat."""

    job_id: JobId
    attempt: AttemptNumber | None = None
    progress: ReportedProgress | None = None


HeldJobs = Annotated[list[HeldJob], msgspec.Meta(max_length=Limits.held_jobs)]


class Heartbeat(msgspec.Struct, frozen=True):
    """`POST /engines/heartbeat`: registers an engine and renews its leases. UNSET fields stay as
    they are."""

    engine_id: EngineId
    engine_type: ShortText | msgspec.UnsetType = msgspec.UNSET
    supported_codecs: CodecNames | msgspec.UnsetType = msgspec.UNSET
    status: ShortText | msgspec.UnsetType = msgspec.UNSET
    storage_capacity_gb: Capacity | msgspec.UnsetType = msgspec.UNSET
    streaming_support: Flag | msgspec.UnsetType = msgspec.UNSET
    benchmark_time: BenchmarkTime | None | msgspec.UnsetType = msgspec.UNSET
    benchmarks: ByCodec | msgspec.UnsetType = msgspec.UNSET
    benchmark_fps: ByCodec | msgspec.UnsetType = msgspec.UNSET
    slots: Slots | msgspec.UnsetType = msgspec.UNSET
    tags: Tags | msgspec.UnsetType = msgspec.UNSET
    capabilities: Tags | msgspec.UnsetType = msgspec.UNSET
    """The kinds of sources that it has proved to convert."""
    hostname: ShortText | msgspec.UnsetType = msgspec.UNSET
    version: ShortText | msgspec.UnsetType = msgspec.UNSET
    free_gb: Amount | None | msgspec.UnsetType = msgspec.UNSET
    cpu_percent: Amount | None | msgspec.UnsetType = msgspec.UNSET
    temperature_c: float | None | msgspec.UnsetType = msgspec.UNSET
    jobs: HeldJobs | msgspec.UnsetType = msgspec.UNSET
    """Its active attempts. UNSET (a legacy engine): all of its leases are renewed."""
    local_job_queue: JobIds | msgspec.UnsetType = msgspec.UNSET
    """The original's name for the same, ids only."""


class Verdict(msgspec.Struct, frozen=True):
    """The daemon's answer on one active attempt of an engine."""

    job_id: str
    attempt: int | None
    verdict: Literal["keep", "cancel", "unknown"]
    """`cancel`: stop that ffmpeg and drop its partial output. `unknown`: there is no such job."""
    paused: bool = False


class HeartbeatReply(msgspec.Struct, frozen=True):
    """The answer to a heartbeat."""

    message: str
    jobs: list[Verdict] = []
    state: str = "idle"
    """The engine's state as the scheduler sees it (`draining`: take nothing new)."""
    lease_s: float = 60.0
    """An attempt whose lease is not renewed for this long is lost."""
    benchmark_requested_at: int | msgspec.UnsetType = msgspec.UNSET
    """Set while the engine should run its benchmark again; its `BenchmarkReport` repeats it."""


class BenchmarkReport(msgspec.Struct, frozen=True):
    """`POST /engines/benchmark_result`."""

    engine_id: EngineId
    benchmark_time: BenchmarkTime
    benchmarks: ByCodec = {}
    requested_at: TimeMs | None = None
    """`HeartbeatReply.benchmark_requested_at` of the request that it answers; None: unrequested."""


class AssignRequest(msgspec.Struct, frozen=True):
    """`POST /assign_job/`: with no engine id, any engine that the policy chooses."""

    engine_id: EngineId | None = None


class ReportedResult(JobResult, frozen=True, omit_defaults=True):
    """A result as an engine sends it: the same fields, with bounds."""

    size_bytes: ResultCount | None = None
    sha256: ResultText | None = None
    duration_s: ResultNumber | None = None
    video_frames: ResultCount | None = None
    video_codec: ResultText | None = None
    audio_codec: ResultText | None = None
    width: ResultCount | None = None
    height: ResultCount | None = None
    source_size_bytes: ResultCount | None = None
    source_duration_s: ResultNumber | None = None
    engine_id: ResultText | None = None
    ffmpeg_version: ResultText | None = None
    encoder: ResultText | None = None
    wall_s: ResultNumber | None = None
    kept: ResultList | None = None
    dropped: ResultList | None = None
    checks: ResultList | None = None
    notes: ResultList | None = None
    damage: ResultList | None = None


class CompleteReport(msgspec.Struct, frozen=True):
    """`POST /jobs/{id}/complete`."""

    output_url: ReportedUrl
    attempt: AttemptNumber | None = None
    engine_id: EngineId | None = None
    result: ReportedResult | None = None


class FailReport(msgspec.Struct, frozen=True):
    """`POST /jobs/{id}/fail`. A legacy report names no class: the job is treated as for `engine`,
    but the failure does not count towards quarantine, since the source may be at fault."""

    error_message: str
    attempt: AttemptNumber | None = None
    engine_id: EngineId | None = None
    error_class: FailureClass | None = None
    log_tail: str | None = None
    needs: Tags = []
    """With the class `incapable`: the capabilities that the source needs."""


class ReleaseReport(msgspec.Struct, frozen=True):
    """`POST /jobs/{id}/release`: the engine gives the attempt back without a failure (it
    drains)."""

    attempt: AttemptNumber
    engine_id: EngineId
    reason: str = "released"


class ProgressReport(msgspec.Struct, frozen=True):
    """`POST /jobs/{id}/progress`; renews the lease of the attempt that it names."""

    attempt: AttemptNumber
    engine_id: EngineId | None = None
    fraction: Amount = 0.0
    fps: Amount | None = None
    speed: Amount | None = None
    eta_seconds: Amount | None = None
    phase: Phase = "encode"


class ReportReply(msgspec.Struct, frozen=True):
    """The answer to a report: the original's sentence, and the job as it is now."""

    message: str
    job: Job
