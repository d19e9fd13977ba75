"""When this engine measures itself anew: because a person asked for it, or by its schedule.

Figures that were taken beside an encode say nothing, so the engine measures only while no job is
running. Asked, it takes nothing new until it has measured; by schedule it waits for a moment without
jobs, which a busy engine may not have for long, and nobody is kept waiting for it.

A request is the daemon's to remember: it is repeated in each heartbeat's reply until a report
names it, so an engine that is killed meanwhile hears of it again.
"""

import time
from collections.abc import Callable

import trio

from distconv_engine.standing import Standing

DAY_S = 86_400.0
LOOK_S_MIN = 60.0
LOOK_S_MAX = 3600.0
"""How often at least the wall clock is looked at, which may have been set."""
AGAIN_S = 3600.0
"""How long after a benchmark that failed its schedule waits."""


class Upkeep:
    """What is due; the measuring itself is the agent's.

    Args:
        standing: whose benchmark it is; it says `benchmarking` while nothing new is wanted.
        wake: is called when something has become due.
        wall: seconds since the epoch.
    """

    def __init__(
        self, standing: Standing, wake: Callable[[], None], wall: Callable[[], float] = time.time
    ) -> None:
        self._standing = standing
        self._wake = wake
        self._wall = wall
        self._every_s = standing.config.benchmark_every_days * DAY_S
        self._not_before_s = 0.0
        self._answered: int | None = None
        self.requested_at: int | None = None
        """The request that is to be answered, as the daemon told it."""

    def ask(self, requested_at: int) -> None:
        """Hear of a request, perhaps once more."""
        if requested_at not in (self.requested_at, self._answered):
            self.requested_at = requested_at
            self._standing.is_benchmarking = True
            self._wake()

    @property
    def left_s(self) -> float:
        """How long until the schedule asks for it; infinite without one."""
        benchmark = self._standing.benchmark
        if benchmark is None or not self._every_s:
            return float("inf")
        due_s = max(benchmark.measured_at + self._every_s, self._not_before_s)
        return due_s - self._wall()

    def is_due(self) -> bool:
        """Whether to measure as soon as nothing is running, or, by schedule, if nothing is held."""
        if self.requested_at is not None:
            return True
        return self.left_s <= 0 and not len(self._standing.holdings)

    def begin(self) -> int | None:
        """Note that it is about to be done; returns the request that it will answer."""
        self._standing.is_benchmarking = True
        return self.requested_at

    def put_off(self) -> None:
        """Note that it cannot be done now: a request stays, the schedule comes again."""
        self._standing.is_benchmarking = self.requested_at is not None

    def end(self, answered: int | None, *, worked: bool) -> None:
        """Note that it was tried. A request that failed stays with the daemon, but is not tried
        again before the engine's next start."""
        self._answered = self._answered if answered is None else answered
        if self.requested_at == answered:
            self.requested_at = None
        self.put_off()
        if not worked:
            self._not_before_s = self._wall() + AGAIN_S

    async def watch(self) -> None:
        """Wake the agent whenever the schedule asks for it."""
        while True:
            await trio.sleep(min(max(self.left_s, LOOK_S_MIN), LOOK_S_MAX))
            if self.is_due():
                self._wake()
