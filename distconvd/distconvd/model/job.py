"""Define a job: one source to be transcoded into one output.

`Job` is both the stored record and the reply on the wire, so each change is encoded only once.
Its first nine fields are the original's, in its order.

Below it, each field is in exactly one of three sets, which say what becomes of it when a person
starts an ended job again: identity and what was submitted are kept, what belongs to one run is reset.
A run consists of attempts; the start of an attempt resets a part of the run's fields. A new field of
`Job` goes into one of the sets, or a test fails.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec

from distconvd.model.bounds import ShownWord, shown, shown_range
from distconvd.model.codec import AudioCodecName
from distconvd.model.container import ContainerName
from distconvd.model.failure import FailureClass
from distconvd.model.limits import Limits


class JobStatus(StrEnum):
    """The status of a job; `distconvd.dispatch.lifecycle` has the table of legal transitions."""

    PENDING = "pending"
    ASSIGNED = "assigned"
    COMPLETED = "completed"
    FAILED_PERMANENTLY = "failed_permanently"
    CANCELLED = "cancelled"


TERMINAL_STATUSES = frozenset(
    {JobStatus.COMPLETED, JobStatus.FAILED_PERMANENTLY, JobStatus.CANCELLED}
)


class Progress(msgspec.Struct, frozen=True):
    """How far an attempt is; never stored, so it is missing from a restart to the next report."""

    fraction: float = 0.0
    """The part that is done, 0 to 1."""
    fps: float | None = None
    speed: float | None = None
    """Media seconds encoded in one second."""
    eta_seconds: float | None = None
    phase: str = "queued"
    """`preflight`, `fetch`, `probe`, `encode`, `verify`, `publish` or `report`."""


class TranscodeOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the output should be like; an omitted field takes the codec's default. `crf` and
    `video_bitrate_kbps` cannot be combined, `two_pass` needs the latter, the container must
    support the codecs, and `faststart` is for mp4 and mov. `crf`, `preset`, `tune` and
    `two_pass` must suit the codec: docs/protocol.md has the table. For a codec that is not in
    the table, any values are accepted."""

    container: ContainerName | None = None
    crf: Annotated[int, shown_range(0, 63)] | None = None
    video_bitrate_kbps: Annotated[int, shown_range(1, 1_000_000)] | None = None
    preset: ShownWord | None = None
    max_width: Annotated[int, shown_range(16, 16_384)] | None = None
    """Pixels; a smaller source is never scaled up."""
    max_height: Annotated[int, shown_range(16, 16_384)] | None = None
    max_fps: Annotated[float, shown_range(0.01, 1_000)] | None = None
    audio_codec: Literal[AudioCodecName, "copy", "none"] | None = None
    audio_bitrate_kbps: Annotated[int, shown_range(6, 1_536)] | None = None
    subtitles: Literal["keep", "drop"] | None = None
    faststart: bool | None = None
    two_pass: bool | None = None
    tune: ShownWord | None = None
    overwrite: bool | None = None
    """Replace an existing file of the output's name; without it the job fails instead."""
    on_unsupported: Literal["fail", "drop"] = "fail"
    """What to do with a stream that the container cannot hold."""
    on_damage: Literal["refuse", "convert"] = "refuse"
    """What to do with a damaged source: `convert` what can be decoded, and list what is lost."""


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the result should go; left out, the engine's own `--output` decides."""

    url: (
        Annotated[str, shown(maxLength=Limits.url_chars, pattern="^(file:///|https?://)")] | None
    ) = None
    """`file://` directory or file, or `http(s)://` for PUT."""
    name: (
        Annotated[
            str,
            shown(minLength=1, maxLength=255, pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$"),
        ]
        | None
    ) = None
    """File name that does not begin with a dot; default: the source's stem with the container's
    suffix."""


class JobResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an engine verified about the output before it reported the job as completed."""

    size_bytes: int | None = None
    sha256: str | None = None
    duration_s: float | None = None
    video_frames: int | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    width: int | None = None
    height: int | None = None
    source_size_bytes: int | None = None
    source_duration_s: float | None = None
    engine_id: str | None = None
    ffmpeg_version: str | None = None
    encoder: str | None = None
    wall_s: float | None = None
    kept: list[str] | None = None
    dropped: list[str] | None = None
    checks: list[str] | None = None
    """Names of the verification checks that passed."""
    notes: list[str] | None = None
    """What is no check: how the output was made or published, such as `streamed`."""
    damage: list[str] | None = None
    """What of a damaged source is lost, with `options.on_damage` `convert`."""


class Job(msgspec.Struct, frozen=True):
    """One job; see the module. Times are ms since the epoch, `None` until they happen."""

    job_id: str
    source_url: str
    target_codec: str
    job_size: float = 0.0
    """MB (10^6 bytes)."""
    status: JobStatus = JobStatus.PENDING
    assigned_engine: str | None = None
    """The engine to which the job is assigned or, once it has ended, the one that ended it."""
    output_url: str | None = None
    retries: int = 0
    """Retries made so far, that is, failures charged to the job that led to a new attempt."""
    max_retries: int = 3
    """Retries allowed after the first attempt; 0 means that one failure ends the job."""
    priority: int = 0
    """0 normal, 1 high, 2 urgent."""
    created_at: int = 0
    updated_at: int = 0
    started_at: int | None = None
    """When the last attempt began."""
    finished_at: int | None = None
    attempt: int = 0
    """Fencing token: the number of the last attempt, 0 before the first."""
    progress: Progress | None = None
    error_message: str | None = None
    error_class: FailureClass | None = None
    labels: dict[str, str] = {}
    requires: list[str] = []
    """Tags that the engine must have."""
    options: TranscodeOptions = TranscodeOptions()
    output: Output | None = None
    source_sha256: str | None = None
    not_before: int | None = None
    """Not assigned before this time; set by the client or by the backoff of a retry."""
    result: JobResult | None = None
    placement: str | None = None
    """The policy's reason for the last assignment, shown by `why`."""
    paused: bool = False
    needs: list[str] = []
    """Capabilities that the source needs of an engine, as an engine that lacks one has found."""
    base_attempt: int = 0
    """The last attempt before a person restarted the job: limits count only what came after."""
    submitted_by: str | None = None
    """Name of the key that submitted it; None: submitted before this was recorded."""
    may_read_media: bool | None = None
    """Whether that key may read the media store, and so the job, too; None: not recorded."""


IDENTITY_FIELDS = frozenset(
    {"job_id", "created_at", "updated_at", "attempt", "submitted_by", "may_read_media"}
)
"""What makes it this job, over all of its runs."""
SUBMITTED_FIELDS = frozenset(
    {
        "source_url",
        "target_codec",
        "job_size",
        "max_retries",
        "priority",
        "labels",
        "requires",
        "options",
        "output",
        "source_sha256",
    }
)
"""What its submitter asked for; only a `JobPatch` changes it."""
PER_RUN_FIELDS = frozenset(
    {
        "status",
        "assigned_engine",
        "output_url",
        "retries",
        "started_at",
        "finished_at",
        "progress",
        "error_message",
        "error_class",
        "not_before",  # a submission may give it, but its first run uses it up
        "result",
        "placement",
        "paused",
        "needs",
        "base_attempt",
    }
)
"""What one run has led to."""
PER_ATTEMPT_FIELDS = frozenset({"finished_at", "error_message", "error_class", "not_before"})
"""Those of `PER_RUN_FIELDS` that belong to the wait before an attempt, and end with it."""

_BLANK = Job("", "", "")
_NEW_RUN = {name: getattr(_BLANK, name) for name in PER_RUN_FIELDS - {"status"}}
_NEW_ATTEMPT = {name: getattr(_BLANK, name) for name in PER_ATTEMPT_FIELDS}


def new_run_fields(job: Job) -> dict[str, Any]:
    """Return the values with which an ended job starts again; the lifecycle gives its status."""
    return _NEW_RUN | {"base_attempt": job.attempt}


def new_attempt_fields(**given: Any) -> dict[str, Any]:
    """Return the values with which an attempt starts or resumes: `given`, and what it resets."""
    return _NEW_ATTEMPT | given
