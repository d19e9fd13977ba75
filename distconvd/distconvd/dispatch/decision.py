"""What the dispatcher answers with: a reply, the changes to make durable, and what to tell then."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

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
    """A moment on both clocks: stamps use the wall, durations the monotonic one, so that a step of
    the wall clock ends no lease."""

    wall_ms: int
    mono_s: float


class Event(NamedTuple):
    """Something that happened, told only once it is durable."""

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
    """One decided command. `rollback_changes` restores the records before it, in the order to apply."""

    reply: T
    changes: Sequence[Change] = ()
    rollback_changes: Sequence[Change] = ()
    events: Sequence[Event] = ()
    read_set: set[tuple[Table, str]] = field(default_factory=set[tuple[Table, str]])
    """The records that the reply shows: it must wait for those still in flight."""
    reads_all: bool = False
    """The reply shows a listing: it must wait for all that is in flight."""
    is_read: bool = False
    """The command itself changed no record; `changes` then are what parked engines got."""
