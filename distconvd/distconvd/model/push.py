"""Define the messages of the websocket `/engines/{engine_id}/ws`: one tagged struct each.

What an engine sends has the body of the equivalent HTTP request, so that there is one vocabulary
and one set of checks; `id` is the engine's own number for it, and the `ack` that follows its commit
repeats it. Bodies stay encoded here: the reader of each message knows its type.
"""

from typing import Annotated

import msgspec

SUBPROTOCOL = "v1.distconv"

CLOSE_GOING_AWAY = 1001
CLOSE_MALFORMED = 1002
CLOSE_NOT_TEXT = 1003
CLOSE_UNREADABLE = 1007
CLOSE_NOT_LET_IN = 1008
CLOSE_TOO_BIG = 1009
CLOSE_NO_PONG = 1011
CLOSE_RESTART = 1012
CLOSE_TOO_SLOW = 1013
CLOSE_REPLACED = 4001
"""Another connection of the same engine id has come; the newest wins."""

MessageId = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class EngineMessage(msgspec.Struct, frozen=True, tag_field="type"):
    """A message from an engine; each is acked."""

    id: MessageId
    body: msgspec.Raw


class HeartbeatMessage(EngineMessage, frozen=True, tag="heartbeat"):
    """A `Heartbeat`; acked with a `HeartbeatReply`."""


class ReportMessage(EngineMessage, frozen=True):
    """A report on one job."""

    job_id: str


class ProgressMessage(ReportMessage, frozen=True, tag="progress"):
    """A `ProgressReport`; acked with a `Verdict`."""


class CompletedMessage(ReportMessage, frozen=True, tag="completed"):
    """A `CompleteReport`; acked with a `ReportReply`."""


class FailedMessage(ReportMessage, frozen=True, tag="failed"):
    """A `FailReport`; acked with a `ReportReply`."""


class ReleasedMessage(ReportMessage, frozen=True, tag="released"):
    """A `ReleaseReport`; acked with a `ReportReply`."""


FromEngine = HeartbeatMessage | ProgressMessage | CompletedMessage | FailedMessage | ReleasedMessage


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a message was refused: the problem document that an HTTP request would have got."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None


class AckMessage(msgspec.Struct, frozen=True, tag_field="type", tag="ack", omit_defaults=True):
    """The answer to one message, sent after its commit: a `body`, or a `problem`."""

    id: MessageId
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    problem: Problem | None = None


class AssignedMessage(msgspec.Struct, frozen=True, tag_field="type", tag="assigned"):
    """A durable assignment. It may be sent again; `job_id` and `attempt` identify it."""

    job: msgspec.Raw


class CancelMessage(msgspec.Struct, frozen=True, tag_field="type", tag="cancel"):
    """Stop this attempt; its result is no longer wanted."""

    job_id: str
    attempt: int


class DrainMessage(msgspec.Struct, frozen=True, tag_field="type", tag="drain"):
    """The engine gets no new jobs from now on; with False it gets them again."""

    draining: bool


class PauseMessage(msgspec.Struct, frozen=True, tag_field="type", tag="pause"):
    """Suspend this attempt's ffmpeg; with False let it go on."""

    job_id: str
    attempt: int
    paused: bool


class BenchmarkMessage(msgspec.Struct, frozen=True, tag_field="type", tag="benchmark"):
    """Run the benchmark again; see `EngineRecord.benchmark_requested_at`."""

    requested_at: int


ToEngine = (
    AckMessage | AssignedMessage | CancelMessage | DrainMessage | PauseMessage | BenchmarkMessage
)
