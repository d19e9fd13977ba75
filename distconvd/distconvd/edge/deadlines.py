"""Enforce thousands of deadlines that move on every request and are almost never reached.

Moving a trio deadline costs microseconds and a heap entry, and a connection moves its own several
times for each request: measured, a tenth of all time. Here a deadline is a number, and one task
checks all of them a few times a second. So a deadline is enforced up to one interval late and never
early, which is good enough for timeouts of seconds.
"""

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from distconvd.edge.limits import EdgeLimits

INTERVAL_S_MAX = 1.0


class Watch:
    """The deadline of one connection; the code that reads or writes moves it."""

    __slots__ = ("due", "scope")

    def __init__(self) -> None:
        self.due = math.inf
        """The deadline in trio's time; infinity while a handler runs."""
        self.scope = trio.CancelScope()
        """Cancelled at the deadline; the connection enters it."""

    def allow(self, seconds: float) -> None:
        """Move the deadline to `seconds` from now."""
        self.due = trio.current_time() + seconds

    def rest(self) -> None:
        """Stop watching until the next `allow`."""
        self.due = math.inf


class Deadlines:
    """All watches of one server; `keep_deadlines` enforces them."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()

    def add(self, watch: Watch) -> None:
        """Enforce this watch from now on."""
        self._watches.add(watch)

    def discard(self, watch: Watch) -> None:
        """Stop enforcing this watch."""
        self._watches.discard(watch)

    async def run(self, interval_s: float) -> None:
        """Cancel the scopes whose deadline has passed; never returns."""
        while True:
            await trio.sleep(interval_s)
            now = trio.current_time()
            for watch in self._watches:
                if watch.due <= now:
                    watch.scope.cancel()


@asynccontextmanager
async def keep_deadlines(limits: EdgeLimits, deadlines: Deadlines) -> AsyncGenerator[None]:
    """Enforce the deadlines while the block runs, at an eighth of the shortest timeout."""
    shortest_s = min(
        limits.head_timeout_s, limits.idle_timeout_s, limits.send_timeout_s, INTERVAL_S_MAX * 8
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run, shortest_s / 8)
        yield
        nursery.cancel_scope.cancel()
