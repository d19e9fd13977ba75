"""Separate a plugin's failures from cancellation and Ctrl-C, which always propagate.

Anything else that a plugin raises is its own failure, whatever its type: a panic of a library in another
language or the skip of a test framework derives from `BaseException`, as `SystemExit` does.
"""

from typing import cast

import trio

_NEVER_CAUGHT = (KeyboardInterrupt, trio.Cancelled)


def reraise_if_cancelled(error: BaseException) -> None:
    """Raise `error` again if it, or any in its group, is a cancellation or Ctrl-C; else return."""
    if isinstance(error, _NEVER_CAUGHT):
        raise error
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        if group.subgroup(_NEVER_CAUGHT) is not None:
            raise error


def unwrap_group(error: BaseException) -> BaseException:
    """Return the only error inside nested groups, or else the group: a reader of the message need not
    know about the nursery."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    return unwrap_group(group.exceptions[0]) if len(group.exceptions) == 1 else group


class HookFault(Exception):
    """A hook raised something that is not an `Exception`; the cause is what it raised."""
