"""Define the vocabulary: all that crosses a process boundary or a disk, as typed values.

Rules: nothing here imports anything else of ours; everything is immutable; a name means the same
thing in code, documents, logs, metrics and on the wire. Times are milliseconds since the epoch
(`…_at`), sizes say their unit unless the original's README fixed the name (`job_size` is in MB).
"""

from distconvd.model.attempt import Attempt, AttemptHistory
from distconvd.model.bound_words import TypeFault, explain, maybe_wrong_type
from distconvd.model.bounds import (
    SETTING_MAX,
    CodecName,
    EngineId,
    NotNegative,
    NotNegativeCount,
    Positive,
    PositiveCount,
    Slots,
    sentence,
)
from distconvd.model.codec import AUDIO_CODECS, CODEC_ALIASES, CODECS, Codec, canonical_codec
from distconvd.model.container import CONTAINERS, ContainerName, ContainerRules, container_of
from distconvd.model.engine import EngineRecord, EngineState
from distconvd.model.failure import (
    FAILURES,
    AtFault,
    Charge,
    FailureClass,
    FailureRule,
    Reporter,
    Retry,
    Wait,
)
from distconvd.model.ids import ID_RULE, is_id
from distconvd.model.job import (
    IDENTITY_FIELDS,
    PER_ATTEMPT_FIELDS,
    PER_RUN_FIELDS,
    SUBMITTED_FIELDS,
    TERMINAL_STATUSES,
    Job,
    JobResult,
    JobStatus,
    Output,
    Progress,
    TranscodeOptions,
    new_attempt_fields,
    new_run_fields,
)
from distconvd.model.limits import Limits
from distconvd.model.masking import mask_record, mask_urls, may_have_secrets
from distconvd.model.messages import (
    AssignRequest,
    BenchmarkReport,
    CompleteReport,
    FailReport,
    Heartbeat,
    HeartbeatReply,
    HeldJob,
    JobPatch,
    ProgressReport,
    ReleaseReport,
    ReportedProgress,
    ReportedResult,
    ReportReply,
    Submission,
    Verdict,
)
from distconvd.model.options import OPTION_RANGES, OptionFault, find_fault
from distconvd.model.outcome import AttemptOutcome

__all__ = [
    "AUDIO_CODECS",
    "CODECS",
    "CODEC_ALIASES",
    "CONTAINERS",
    "FAILURES",
    "IDENTITY_FIELDS",
    "ID_RULE",
    "OPTION_RANGES",
    "PER_ATTEMPT_FIELDS",
    "PER_RUN_FIELDS",
    "SETTING_MAX",
    "SUBMITTED_FIELDS",
    "TERMINAL_STATUSES",
    "AssignRequest",
    "AtFault",
    "Attempt",
    "AttemptHistory",
    "AttemptOutcome",
    "BenchmarkReport",
    "Charge",
    "Codec",
    "CodecName",
    "CompleteReport",
    "ContainerName",
    "ContainerRules",
    "EngineId",
    "EngineRecord",
    "EngineState",
    "FailReport",
    "FailureClass",
    "FailureRule",
    "Heartbeat",
    "HeartbeatReply",
    "HeldJob",
    "Job",
    "JobPatch",
    "JobResult",
    "JobStatus",
    "Limits",
    "NotNegative",
    "NotNegativeCount",
    "OptionFault",
    "Output",
    "Positive",
    "PositiveCount",
    "Progress",
    "ProgressReport",
    "ReleaseReport",
    "ReportReply",
    "ReportedProgress",
    "ReportedResult",
    "Reporter",
    "Retry",
    "Slots",
    "Submission",
    "TranscodeOptions",
    "TypeFault",
    "Verdict",
    "Wait",
    "canonical_codec",
    "container_of",
    "explain",
    "find_fault",
    "is_id",
    "mask_record",
    "mask_urls",
    "may_have_secrets",
    "maybe_wrong_type",
    "new_attempt_fields",
    "new_run_fields",
    "sentence",
]
