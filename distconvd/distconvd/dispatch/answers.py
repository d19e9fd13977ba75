"""A policy's answer, held against its type before anything of it is kept.

Its reason goes into the job's record and to people; one that cannot be written as JSON would make the
record unreadable for ever, so whatever is not exactly what was asked for counts as a failure.
"""

from distconvd.dispatch.matching import AvailableEngines
from distconvd.model import Limits
from distconvd.policy import Hold, Place

UNTIL_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999."""


def checked_answer(answer: object, engines: AvailableEngines) -> Place | Hold:
    """Return what a policy answered, provided that it is that; raises `ValueError`."""
    if isinstance(answer, Hold):
        _check_reason(answer.reason)
        _check_until(answer.until_ms)
        return answer
    if isinstance(answer, Place):
        _check_reason(answer.reason)
        if type(answer.engine_id) is str and engines.get(answer.engine_id) is not None:
            return answer
    raise ValueError(f"it answered {answer!r:.200}, which is no idle engine and no hold")


def _check_reason(reason: object) -> None:
    if type(reason) is not str:
        raise ValueError(f"the reason that it gave is {reason!r:.200}, no str")
    if len(reason) > Limits.message_chars:
        raise ValueError(f"the reason that it gave has more than {Limits.message_chars} characters")
    reason.encode()  # raises ValueError for half of a surrogate pair


def _check_until(until_ms: object) -> None:
    if until_ms is None:
        return
    if type(until_ms) is not int or not 0 <= until_ms <= UNTIL_MS_MAX:
        raise ValueError(
            f"it holds until {until_ms!r:.200}, which is no time in ms since the epoch"
        )
