"""Define what clients and engines send and what the daemon answers: one struct a message.

Unknown fields are ignored, as the original does (`?strict=true` refuses them on a submission).
Bounds that types cannot express are checked in `distconvd.api.validate`.
"""

from typing import Literal

import msgspec

from distconvd.model.failure import FailureClass
from distconvd.model.job import (
    Job,
    JobResult,
    Output,
    Progress,
    TranscodeOptions,
)


class Submission(msgspec.Struct, frozen=True):
    """`POST /jobs/`: a new job."""

    source_url: str
    target_codec: str
    job_size: float = 0.0
    max_retries: int = 3
    priority: int = 0
    labels: dict[str, str] = {}
    requires: list[str] = []
    options: TranscodeOptions = TranscodeOptions()
    output: Output | None = None
    source_sha256: str | None = None
    not_before: int | None = None


class JobPatch(msgspec.Struct, frozen=True):
    """`PATCH /jobs/{id}`: what may change while a job has not ended. UNSET fields do not."""

    priority: int | msgspec.UnsetType = msgspec.UNSET
    labels: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    not_before: int | None | msgspec.UnsetType = msgspec.UNSET
    paused: bool | msgspec.UnsetType = msgspec.UNSET


class HeldJob(msgspec.Struct, frozen=True):
    """One active attempt, as an engine names it in a heartbeat."""

    job_id: str
    attempt: int | None = None
    progress: Progress | None = None


class Heartbeat(msgspec.Struct, frozen=True):
    """`POST /engines/heartbeat`: registers an engine and renews its leases. UNSET fields stay as
    they are."""

    engine_id: str
    engine_type: str | msgspec.UnsetType = msgspec.UNSET
    supported_codecs: list[str] | msgspec.UnsetType = msgspec.UNSET
    status: str | msgspec.UnsetType = msgspec.UNSET
    storage_capacity_gb: float | msgspec.UnsetType = msgspec.UNSET
    streaming_support: bool | msgspec.UnsetType = msgspec.UNSET
    benchmark_time: float | None | msgspec.UnsetType = msgspec.UNSET
    benchmarks: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    benchmark_fps: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    slots: int | msgspec.UnsetType = msgspec.UNSET
    tags: list[str] | msgspec.UnsetType = msgspec.UNSET
    hostname: str | msgspec.UnsetType = msgspec.UNSET
    version: str | msgspec.UnsetType = msgspec.UNSET
    free_gb: float | None | msgspec.UnsetType = msgspec.UNSET
    cpu_percent: float | None | msgspec.UnsetType = msgspec.UNSET
    temperature_c: float | None | msgspec.UnsetType = msgspec.UNSET
    jobs: list[HeldJob] | msgspec.UnsetType = msgspec.UNSET
    """Its active attempts. UNSET (a legacy engine): all of its leases are renewed."""
    local_job_queue: list[str] | msgspec.UnsetType = msgspec.UNSET
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

    engine_id: str
    benchmark_time: float
    benchmarks: dict[str, float] = {}
    requested_at: int | None = None
    """`HeartbeatReply.benchmark_requested_at` of the request that it answers; None: unrequested."""


class AssignRequest(msgspec.Struct, frozen=True):
    """`POST /assign_job/`: with no engine id, any engine that the policy chooses."""

    engine_id: str | None = None


class CompleteReport(msgspec.Struct, frozen=True):
    """`POST /jobs/{id}/complete`."""

    output_url: str
    attempt: int | None = None
    engine_id: str | None = None
    result: JobResult | None = None


class FailReport(msgspec.Struct, frozen=True):
    """`POST /jobs/{id}/fail`. A legacy report names no class: the job is treated as for `engine`,
    but the failure does not count towards quarantine, since the source may be at fault."""

    error_message: str
    attempt: int | None = None
    engine_id: str | None = None
    error_class: FailureClass | None = None
    log_tail: str | None = None


class ReleaseReport(msgspec.Struct, frozen=True):
    """`POST /jobs/{id}/release`: the engine gives the attempt back without a failure (it
    drains)."""

    attempt: int
    engine_id: str
    reason: str = "released"


class ProgressReport(msgspec.Struct, frozen=True):
    """`POST /jobs/{id}/progress`; renews the lease of the attempt that it names."""

    attempt: int
    engine_id: str | None = None
    fraction: float = 0.0
    fps: float | None = None
    speed: float | None = None
    eta_seconds: float | None = None
    phase: str = "encode"


class ReportReply(msgspec.Struct, frozen=True):
    """The answer to a report: the original's sentence, and the job as it is now."""

    message: str
    job: Job
