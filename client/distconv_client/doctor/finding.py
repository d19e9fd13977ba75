"""What a check found, and the bound on how long it may take."""

import queue
import threading
from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

CHECK_S = 10.0
"""How long a check may take that does not say otherwise."""

T = TypeVar("T")
Outcome = Literal["ok", "fail", "skip"]


class Finding(msgspec.Struct, frozen=True):
    """The outcome of one check; also what `distconv doctor --json` prints.

    Attributes:
        check: its name, one word or two.
        outcome: `skip` where it makes no sense, or what it needs has failed.
        detail: what was found; `told` in JSON.
        remedy: what to do about a failure.
    """

    check: str
    outcome: Outcome
    detail: str = msgspec.field(name="told")
    remedy: str = ""


def ok(check: str, detail: str) -> Finding:
    """Return that all is well."""
    return Finding(check, "ok", detail)


def fail(check: str, detail: str, remedy: str) -> Finding:
    """Return a failure with what to do about it."""
    return Finding(check, "fail", detail, remedy)


def skip(check: str, detail: str) -> Finding:
    """Return that there was nothing to check."""
    return Finding(check, "skip", detail)


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what `call` does, for calls that know no bound of their own; raises `TimeoutError`.

    It runs in a thread that is left behind when it takes too long.
    """
    answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((call(), None))
        except Exception as error:  # noqa: BLE001 - it is raised again below, where it belongs
            answers.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        value, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value] # the value that `call` returned
