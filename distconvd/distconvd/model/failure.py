"""Define the failure classes: who is at fault, and what follows for the job and the engine.

`FAILURES` is the one table. The dispatcher decides by it (`dispatch.retries`, `dispatch.reports`),
the audit counts by it, the engine's failures are its classes, and docs/protocol.md shows it. A new
class is a new member of `FailureClass` and a row here.
"""

from dataclasses import dataclass
from enum import StrEnum

from distconvd.model.outcome import AttemptOutcome


class FailureClass(StrEnum):
    """Whose fault a failure is; it decides whether and when the job is retried."""

    INPUT = "input"
    ENGINE = "engine"
    NOT_ALLOWED = "not_allowed"
    NO_ACCESS = "no_access"
    OUTPUT = "output"
    INCAPABLE = "incapable"
    VERIFICATION = "verification"
    TRANSIENT = "transient"
    LOST = "lost"
    CANCELLED = "cancelled"


class AtFault(StrEnum):
    """Who can do something about a failure."""

    JOB = "the job or its source"
    WISH = "the job's own wish"
    ENGINE = "the engine"
    SETTINGS = "the engine's settings"
    SURROUNDINGS = "the engine's machine or network"
    PERSON = "a person's decision"


class Charge(StrEnum):
    """Whether a retry after the failure uses up one of the job's `max_retries`."""

    NEVER = "no"
    ALWAYS = "yes"
    BEYOND_LIMIT = "only beyond `transient_attempts_max`"
    """All classes with this charge share the limit, so that every job ends."""


class Retry(StrEnum):
    """How long the job goes back into the queue."""

    NEVER = "never"
    WHILE_UNCHARGED_OR_LEFT = "a charged one while `retries` < `max_retries`"
    ELSEWHERE = "by each other engine that can take it, once"
    UNTIL_LOST_LIMIT = "until `lost_attempts_max` engines were lost with it"


class Wait(StrEnum):
    """From which failure on the job waits, each time longer, before its next attempt."""

    NEVER = "no"
    FROM_SECOND = "from the second failure"
    FROM_FIRST = "from the first failure"


class Reporter(StrEnum):
    """Whose report of the class is believed; another's counts as `engine`, lest an uncharged class
    is retried without end."""

    ENGINE = "any report"
    NUMBERED_ENGINE = "a report with an attempt number"
    DAEMON = "no report"


@dataclass(frozen=True, slots=True)
class FailureRule:
    """One row: what a failure class means and what follows from it."""

    name: FailureClass
    meaning: str
    at_fault: AtFault
    charged: Charge
    retried: Retry
    wait: Wait
    quarantines: bool = False
    """Whether it counts towards the quarantine of its engine."""
    reporter: Reporter = Reporter.ENGINE
    ends_as: FailureClass | None = None
    """The class of a job that no engine could do; None: the same. What no engine of a farm can reach is
    the job's own fault."""
    outcome: AttemptOutcome = AttemptOutcome.FAILED
    """How the attempt ended, as its history says it."""


FAILURES: dict[FailureClass, FailureRule] = {
    row.name: row
    for row in (
        FailureRule(
            FailureClass.INPUT, "the source is bad, or the job asks for what cannot be done",
            AtFault.JOB, Charge.NEVER, Retry.NEVER, Wait.NEVER,
        ),
        FailureRule(
            FailureClass.ENGINE, "this engine could not do it; another one is preferred",
            AtFault.ENGINE, Charge.ALWAYS, Retry.WHILE_UNCHARGED_OR_LEFT, Wait.FROM_SECOND,
            quarantines=True,
        ),
        FailureRule(
            FailureClass.NOT_ALLOWED, "this engine's settings or its ffmpeg do not allow it",
            AtFault.SETTINGS, Charge.NEVER, Retry.ELSEWHERE, Wait.NEVER,
        ),
        FailureRule(
            FailureClass.NO_ACCESS,
            "this engine lacks the share, the path or the permission for the source or the output",
            AtFault.SURROUNDINGS, Charge.NEVER, Retry.ELSEWHERE, Wait.NEVER,
            ends_as=FailureClass.INPUT,
        ),
        FailureRule(
            FailureClass.OUTPUT, "the place that the job names for its output refuses it",
            AtFault.WISH, Charge.NEVER, Retry.NEVER, Wait.NEVER,
        ),
        FailureRule(
            FailureClass.INCAPABLE,
            "this engine's ffmpeg lacks what the source needs (`needs`): the job waits for an engine"
            " that has it",
            AtFault.SETTINGS, Charge.BEYOND_LIMIT, Retry.WHILE_UNCHARGED_OR_LEFT, Wait.FROM_SECOND,
        ),
        FailureRule(
            FailureClass.VERIFICATION, "the output is not what the source and the job require",
            AtFault.ENGINE, Charge.ALWAYS, Retry.WHILE_UNCHARGED_OR_LEFT, Wait.FROM_SECOND,
            quarantines=True,
        ),
        FailureRule(
            FailureClass.TRANSIENT, "a temporary fault, such as a full disk or a network that is down",
            AtFault.SURROUNDINGS, Charge.BEYOND_LIMIT, Retry.WHILE_UNCHARGED_OR_LEFT,
            Wait.FROM_FIRST,
        ),
        FailureRule(
            FailureClass.LOST, "the engine disappeared, or was killed",
            AtFault.ENGINE, Charge.NEVER, Retry.UNTIL_LOST_LIMIT, Wait.NEVER,
            reporter=Reporter.NUMBERED_ENGINE, outcome=AttemptOutcome.LOST,
        ),
        FailureRule(
            FailureClass.CANCELLED, "a person cancelled the job",
            AtFault.PERSON, Charge.NEVER, Retry.NEVER, Wait.NEVER,
            reporter=Reporter.DAEMON, outcome=AttemptOutcome.CANCELLED,
        ),
    )
}  # fmt: skip


def failure_table() -> str:
    """Return the table as Markdown, for the documents."""
    head = (
        "`error_class`", "meaning", "at fault", "charged", "retried", "waits", "quarantines",
    )  # fmt: skip
    rows = [
        (
            f"`{row.name}`", row.meaning, row.at_fault, row.charged, row.retried, row.wait,
            "yes" if row.quarantines else "no",
        )
        for row in FAILURES.values()
    ]  # fmt: skip
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
