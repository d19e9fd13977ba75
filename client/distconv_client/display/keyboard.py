"""Waiting that a key can end: for a full-screen view that is left with `q`.

Resource handling: `raw_keys` takes the terminal out of line mode, and puts it back however the block
is left. Where stdin is no terminal there are no keys, and waiting is only waiting.
"""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Generator
from contextlib import contextmanager

LEAVE = frozenset("qQ\x1b\x04")
"""q, Escape and Ctrl-D."""


@contextmanager
def raw_keys() -> Generator[Callable[[float], bool]]:
    """Yield a function that waits so many seconds, and tells whether a key to leave came."""
    if not sys.stdin.isatty():
        yield _only_wait
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield lambda seconds: _wait_for_key(descriptor, seconds)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _only_wait(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _wait_for_key(descriptor: int, seconds: float) -> bool:
    ready, _, _ = select.select([descriptor], [], [], seconds)
    if not ready:
        return False
    keys = os.read(descriptor, 64).decode(errors="replace")
    if keys.startswith("\x1b") and len(keys) > 1:
        return False  # an arrow key, or the like
    # A closed terminal is readable and gives nothing.
    return not keys or not LEAVE.isdisjoint(keys)
