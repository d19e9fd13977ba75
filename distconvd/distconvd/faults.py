"""What a plugin raises is its own fault, whatever its type: a panic of a library in another language or
the skip of a test framework derives from `BaseException`, as `SystemExit` does.

Two things are nobody's fault and always pass: the cancellation of a task, and a person's ^C.
"""

from typing import cast

import trio

_NEVER_CAUGHT = (KeyboardInterrupt, trio.Cancelled)


def reraise_if_cancelled(error: BaseException) -> None:
    """Raise `error` again where it, or any in its group, is no fault of a plugin's; else return."""
    if isinstance(error, _NEVER_CAUGHT):
        raise error
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        if group.subgroup(_NEVER_CAUGHT) is not None:
            raise error


def unwrap_group(error: BaseException) -> BaseException:
    """Return the error inside groups of one, or else the group: whether there was a nursery around it
    is no matter of whoever is told."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    return unwrap_group(group.exceptions[0]) if len(group.exceptions) == 1 else group


class HookFault(Exception):
    """A hook raised what is no `Exception`; the cause is what it raised."""
