"""Check a policy's answer against its type before anything of it is stored.

Its reason goes into the job's record and is shown to people. One that cannot be written as JSON
would leave the record unreadable, so an answer of any other type counts as a failure.
"""

from distconvd.dispatch.matching import AvailableEngines
from distconvd.model import Limits
from distconvd.policy import Hold, Place

UNTIL_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999."""


def checked_answer(answer: object, engines: AvailableEngines) -> Place | Hold:
    """Return a policy's answer if it is valid; raises `ValueError` otherwise."""
    if isinstance(answer, Hold):
        _check_reason(answer.reason)
        _check_until(answer.until_ms)
        return answer
    if isinstance(answer, Place):
        _check_reason(answer.reason)
        if type(answer.engine_id) is str and engines.get(answer.engine_id) is not None:
            return answer
    raise ValueError(
        f"it answered {answer!r:.200}, which is neither a Place on an idle engine nor a Hold"
    )


def _check_reason(reason: object) -> None:
    if type(reason) is not str:
        raise ValueError(f"its reason is {reason!r:.200}, which is not a str")
    if len(reason) > Limits.message_chars:
        raise ValueError(f"its reason has more than {Limits.message_chars} characters")
    reason.encode()  # raises ValueError for half of a surrogate pair


def _check_until(until_ms: object) -> None:
    if until_ms is None:
        return
    if type(until_ms) is not int or not 0 <= until_ms <= UNTIL_MS_MAX:
        raise ValueError(
            f"its until_ms is {until_ms!r:.200}, which is not a time in ms since the epoch"
        )
