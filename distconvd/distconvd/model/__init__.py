"""Define the vocabulary: all that crosses a process boundary or a disk, as typed values.

Rules: nothing here imports anything else of ours; everything is immutable; a name means the same
thing in code, documents, logs, metrics and on the wire. Times are milliseconds since the epoch
(`…_at`), sizes say their unit unless the original's README fixed the name (`job_size` is in MB).
"""

from distconvd.model.attempt import Attempt, AttemptHistory, AttemptOutcome
from distconvd.model.codec import CODEC_ALIASES, CODECS, Codec, canonical_codec
from distconvd.model.container import CONTAINERS, ContainerName, ContainerRules, container_of
from distconvd.model.engine import EngineRecord, EngineState
from distconvd.model.ids import ID_RULE, is_id, is_word
from distconvd.model.job import (
    TERMINAL_STATUSES,
    FailureClass,
    Job,
    JobResult,
    JobStatus,
    Output,
    Progress,
    TranscodeOptions,
)
from distconvd.model.limits import Limits
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
    ReportReply,
    Submission,
    Verdict,
)
from distconvd.model.options import OPTION_RANGES, OptionFault, find_fault

__all__ = [
    "CODECS",
    "CODEC_ALIASES",
    "CONTAINERS",
    "ID_RULE",
    "OPTION_RANGES",
    "TERMINAL_STATUSES",
    "AssignRequest",
    "Attempt",
    "AttemptHistory",
    "AttemptOutcome",
    "BenchmarkReport",
    "Codec",
    "CompleteReport",
    "ContainerName",
    "ContainerRules",
    "EngineRecord",
    "EngineState",
    "FailReport",
    "FailureClass",
    "Heartbeat",
    "HeartbeatReply",
    "HeldJob",
    "Job",
    "JobPatch",
    "JobResult",
    "JobStatus",
    "Limits",
    "OptionFault",
    "Output",
    "Progress",
    "ProgressReport",
    "ReleaseReport",
    "ReportReply",
    "Submission",
    "TranscodeOptions",
    "Verdict",
    "canonical_codec",
    "container_of",
    "find_fault",
    "is_id",
    "is_word",
]
