"""Define an attempt, one run of a job on one engine, and the history of ended attempts."""

import msgspec

from distconvd.model.failure import FailureClass
from distconvd.model.outcome import AttemptOutcome


class Attempt(msgspec.Struct, frozen=True):
    """One run of a job on one engine. `number` is the fencing token that reports must carry."""

    number: int
    engine_id: str | None
    started_at: int | None
    ended_at: int | None
    outcome: AttemptOutcome
    error_class: FailureClass | None = None
    message: str | None = None
    log_tail: str | None = None
    requeued: bool = False
    """Whether the job went back to the queue after it."""
    reported: bool = False
    """Whether its engine itself reported how it ended: then the attempt is never resumed. After a
    loss that only the dispatcher noticed (an expired lease) it may be."""


class AttemptHistory(msgspec.Struct, frozen=True):
    """The ended attempts of one job, oldest first: the record of table `attempts`."""

    job_id: str
    attempts: list[Attempt] = []
    dropped: int = 0
    """How many of the oldest were dropped to keep the record bounded."""
