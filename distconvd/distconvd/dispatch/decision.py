"""Define a decision (a reply, changes to commit, events to publish later) and a refusal."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

from distconvd.errors import DistconvError
from distconvd.store import Change, Table

T = TypeVar("T")

EventKind = Literal[
    "job.submitted",
    "job.updated",
    "job.assigned",
    "job.requeued",
    "job.completed",
    "job.failed",
    "job.cancelled",
    "job.restarted",
    "job.progress",
    "engine.registered",
    "engine.changed",
    "engine.offline",
    "engine.online",
    "engine.quarantined",
    "engine.removed",
]


class Instant(NamedTuple):
    """A moment on both clocks: timestamps use the wall clock, durations the monotonic one, so that
    a step of the wall clock ends no lease."""

    wall_ms: int
    mono_s: float


class Event(NamedTuple):
    """Something that happened; published only once it is durable."""

    kind: EventKind
    at_ms: int
    job_id: str | None = None
    engine_id: str | None = None
    attempt: int | None = None
    record: bytes | None = None
    """The job's or engine's record after the event, as on the wire."""
    reason: str | None = None


@dataclass(slots=True)
class Decision(Generic[T]):
    """The result of one command. `rollback_changes` restores the records, in the order to apply."""

    reply: T
    changes: Sequence[Change] = ()
    rollback_changes: Sequence[Change] = ()
    events: Sequence[Event] = ()
    read_set: set[tuple[Table, str]] = field(default_factory=set[tuple[Table, str]])
    """The records that the reply depends on: it must wait until they are durable."""
    reads_all: bool = False
    """The reply depends on all records: it must wait until everything is durable."""
    is_read: bool = False
    """The command itself changed no record; `changes` are then assignments to waiting engines."""


@dataclass(slots=True)
class Refusal:
    """What a command raised that its caller may see, with what the refusal depends on.

    A refusal shows state too ("the job has ended"): it must not precede the commit of what it read,
    and is void if that is rolled back. Nothing has changed.
    """

    error: DistconvError
    read_set: set[tuple[Table, str]]
    reads_all: bool
