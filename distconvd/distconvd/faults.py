"""What a plugin raises is its own fault, whatever its type: a panic of a library in another language or
the skip of a test framework derives from `BaseException`, as `SystemExit` does.

Two things are nobody's fault and always pass: the cancellation of a task, and a person's ^C.
"""

from typing import cast

import trio

_PASSES = (KeyboardInterrupt, trio.Cancelled)


def let_pass(error: BaseException) -> None:
    """Raise `error` again where it, or any in its group, is no fault of a plugin's; else return."""
    if isinstance(error, _PASSES):
        raise error
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        if group.subgroup(_PASSES) is not None:
            raise error


def only_leaf(error: BaseException) -> BaseException:
    """Return the error inside groups of one, or else the group: whether there was a nursery around it
    is no matter of whoever is told."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    return only_leaf(group.exceptions[0]) if len(group.exceptions) == 1 else group


class HookFault(Exception):
    """A hook raised what is no `Exception`; the cause is what it raised."""
