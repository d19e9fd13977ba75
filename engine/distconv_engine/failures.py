"""Raise the failures of an attempt: one exception for each failure class.

A stage raises one of these with a sentence that a person understands; the pipeline turns it into
the report. Nothing else decides a failure's class, and no stage reports by itself. What follows
from a class (a retry, a wait, a quarantine) is the daemon's to decide, by the same table.
"""

from collections.abc import Sequence
from pathlib import Path

from distconvd.model import FAILURES, Capability, FailureClass, Limits, Reporter, mask_urls


class JobFailure(Exception):
    """A failed attempt. The secrets of URLs are masked in all that it says.

    Args:
        message: what was found, where, and what to do about it, if anything helps.
        log_tail: the last lines of ffmpeg, if ffmpeg found it.
    """

    error_class = FailureClass.ENGINE

    def __init_subclass__(cls) -> None:
        """Refuse a class that no engine may report: the daemon would not believe it."""
        super().__init_subclass__()
        if FAILURES[cls.error_class].reporter is Reporter.DAEMON:
            raise TypeError(f"{cls.__name__}: no engine reports {cls.error_class!r}")

    def __init__(self, message: str, *, log_tail: str | None = None) -> None:
        message = mask_urls(message)
        super().__init__(message)
        self.message = message[: Limits.message_chars]
        self.log_tail = mask_urls(log_tail)[-Limits.log_tail_chars :] if log_tail else None


class InputFault(JobFailure):
    """The source, or what the job asks of it, is bad: no engine could do better."""

    error_class = FailureClass.INPUT


class Unusable(InputFault):
    """The source is no film, or cannot be decoded by anybody: not even in part."""


def cut_short(what: str, needed: int, size: int) -> InputFault:
    """Return the failure of a file of `size` bytes that should have `needed` for `what`."""
    return InputFault(
        f"The source is cut: {what} reaches to byte {needed}, but the file ends at byte {size}."
    )


class EngineFault(JobFailure):
    """This engine could not do it; another one may."""

    error_class = FailureClass.ENGINE


class FfmpegFailed(EngineFault):
    """The ffmpeg that was used gave up and did not say that the source is at fault; another build of it
    may do better."""


class NotAllowedHere(EngineFault):
    """This engine's settings forbid it; another one's may not."""

    error_class = FailureClass.NOT_ALLOWED


class NoAccess(EngineFault):
    """This engine lacks the share, the path or the permission; another one may have it."""

    error_class = FailureClass.NO_ACCESS


class OutputRefused(JobFailure):
    """The place that the job names for its output refuses it, whichever engine brings it."""

    error_class = FailureClass.OUTPUT


class Lacking(NotAllowedHere):
    """The ffmpeg that was used lacks something that the job needs; another one may have it."""


class Incapable(Lacking):
    """This engine lacks capabilities that the source needs: the job waits for one that has them.

    Args:
        message: as in `JobFailure`.
        log_tail: as in `JobFailure`.
        needs: the capabilities that the source needs.
    """

    error_class = FailureClass.INCAPABLE

    def __init__(
        self, message: str, *, needs: Sequence[Capability], log_tail: str | None = None
    ) -> None:
        super().__init__(message, log_tail=log_tail)
        self.needs = tuple(needs)


class TransientFault(JobFailure):
    """A passing fault, such as a full disk or an unavailable server."""

    error_class = FailureClass.TRANSIENT


class InsufficientSpace(TransientFault):
    """A disk is full, or too small for the job.

    Args:
        message: as in `JobFailure`.
        log_tail: as in `JobFailure`.
        place: a path on the disk that is meant; None: the work directory's disk.
        needed: the bytes that have to be free there; None: more than were free.
    """

    def __init__(
        self,
        message: str,
        *,
        log_tail: str | None = None,
        place: Path | None = None,
        needed: float | None = None,
    ) -> None:
        super().__init__(message, log_tail=log_tail)
        self.place = place
        self.needed = needed


class VerificationFault(JobFailure):
    """The output does not match what the source and the job call for."""

    error_class = FailureClass.VERIFICATION
