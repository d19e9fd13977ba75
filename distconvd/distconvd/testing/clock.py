"""Provide a wall clock for tests: the test sets it, and it runs with trio's clock.

Under `autojump_clock` a week costs no time:

    clock = VirtualClock("2026-03-27T21:00:00+01:00")
    async with open_daemon(policy="time-window", clock=clock, …) as daemon:
        await clock.sleep_until("2026-03-27T22:00:00+01:00")
"""

from datetime import datetime

import trio

from distconvd.dispatch import Instant

WALL_MS = 1_700_000_000_000
"""The wall clock's time when trio's clock is at 0, unless a test sets another."""


class VirtualClock:
    """See the module.

    Args:
        start: the present wall-clock time, as ISO 8601 with an offset; None: a day in 2023.
    """

    def __init__(self, start: str | None = None) -> None:
        self._start_ms = None if start is None else ms_of(start)
        self._offset_ms = WALL_MS

    def now(self) -> Instant:
        """Return the present time on both clocks; call it within trio."""
        mono_s = trio.current_time()
        if self._start_ms is not None:
            self._offset_ms, self._start_ms = self._start_ms - int(mono_s * 1000), None
        return Instant(self._offset_ms + int(mono_s * 1000), mono_s)

    def step(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or NTP does."""
        self.now()
        self._offset_ms += int(seconds * 1000)

    async def sleep_until(self, wall: str) -> None:
        """Wait until the wall clock shows this time."""
        await trio.sleep(max(0.0, (ms_of(wall) - self.now().wall_ms) / 1000))


def ms_of(text: str) -> int:
    """Return a time in ISO 8601 as ms since the epoch; raises `ValueError` without an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC")
    return int(moment.timestamp() * 1000)
