"""Wait until a key is pressed or the time is up, for a full-screen view that `q` quits.

Resource handling: `raw_keys` switches the terminal from line mode to single keys, and restores it
however the block is left. If stdin is not a terminal there are no keys, and only the time counts.
"""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Generator
from contextlib import contextmanager

QUIT_KEYS = frozenset("qQ\x1b\x04")
"""q, Escape and Ctrl-D."""


@contextmanager
def raw_keys() -> Generator[Callable[[float], bool]]:
    """Yield a function that waits some seconds, and returns whether a quit key was pressed."""
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
        return False  # the sequence of an arrow key, for example
    # A closed terminal is readable and returns nothing.
    return not keys or not QUIT_KEYS.isdisjoint(keys)
