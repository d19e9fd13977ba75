"""Define how an attempt can end."""

from enum import StrEnum


class AttemptOutcome(StrEnum):
    """How an attempt ended; `RUNNING` only in listings, never stored."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    LOST = "lost"
    RELEASED = "released"
    CANCELLED = "cancelled"
