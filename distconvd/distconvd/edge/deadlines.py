"""Deadlines by the thousand that are moved on every request and almost never reached.

Moving a deadline of trio's costs microseconds and a heap entry, and a connection moves its own
several times for each request: measured, a tenth of all time. Here it is a number, and one task
looks through all of them a few times a second. So a deadline is kept late by up to one tick, and
never early; for timeouts of seconds that is all the same.
"""

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from distconvd.edge.limits import EdgeLimits

TICK_S_MAX = 1.0


class Watch:
    """The deadline of one connection; whoever reads or writes moves it."""

    __slots__ = ("due", "scope")

    def __init__(self) -> None:
        self.due = math.inf
        """When it ends, in trio's time; infinity while a handler runs."""
        self.scope = trio.CancelScope()
        """What it ends; entered by the connection."""

    def allow(self, seconds: float) -> None:
        """Move the deadline to so many seconds from now."""
        self.due = trio.current_time() + seconds

    def rest(self) -> None:
        """Stop watching until the next `allow`."""
        self.due = math.inf


class Deadlines:
    """All watches of one server; `keep_deadlines` keeps them."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()

    def add(self, watch: Watch) -> None:
        """Keep this one from now on."""
        self._watches.add(watch)

    def discard(self, watch: Watch) -> None:
        """Forget it."""
        self._watches.discard(watch)

    async def run(self, tick_s: float) -> None:
        """Cancel what is over, for ever."""
        while True:
            await trio.sleep(tick_s)
            now = trio.current_time()
            for watch in self._watches:
                if watch.due <= now:
                    watch.scope.cancel()


@asynccontextmanager
async def keep_deadlines(limits: EdgeLimits, deadlines: Deadlines) -> AsyncGenerator[None]:
    """Keep them beside the block, with a tick that suits the shortest of the timeouts."""
    shortest_s = min(
        limits.head_timeout_s, limits.idle_timeout_s, limits.send_timeout_s, TICK_S_MAX * 8
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run, shortest_s / 8)
        yield
        nursery.cancel_scope.cancel()
