"""Define the outcome of a check, and bound how long a check may take."""

import queue
import threading
from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

CHECK_S = 10.0
"""How long a check may take by default."""

T = TypeVar("T")
Outcome = Literal["ok", "fail", "skip"]


class Finding(msgspec.Struct, frozen=True):
    """The outcome of one check; also what `distconv doctor --json` prints.

    Attributes:
        check: its name, one or two words.
        outcome: `skip` if the check does not apply, or a check that it needs has failed.
        detail: what was found; named `told` in JSON.
        remedy: what to do about a failure.
    """

    check: str
    outcome: Outcome
    detail: str = msgspec.field(name="told")
    remedy: str = ""


def ok(check: str, detail: str) -> Finding:
    """Return a finding without a fault."""
    return Finding(check, "ok", detail)


def fail(check: str, detail: str, remedy: str) -> Finding:
    """Return a failure with what to do about it."""
    return Finding(check, "fail", detail, remedy)


def skip(check: str, detail: str) -> Finding:
    """Return the finding of a check that was not made, with the reason."""
    return Finding(check, "skip", detail)


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of a `call` without a timeout of its own; raises `TimeoutError`.

    It runs in a daemon thread, which is abandoned when it takes too long.
    """
    answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((call(), None))
        except Exception as error:  # noqa: BLE001 - it is raised below, in the caller's thread
            answers.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        value, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value] # the value that `call` returned
