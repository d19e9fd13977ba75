"""When this engine measures itself anew: because a person asked for it, or by its schedule.

Figures that were taken beside an encode say nothing, so the engine measures only while no job is
running, and begins none meanwhile. Asked, it takes nothing new until it has measured; by schedule it
waits for a moment without jobs, which a busy engine may not have for long, and nobody is kept
waiting for it.

A request is the daemon's to remember: it is repeated in each heartbeat's reply until a report
names it, so an engine that is killed meanwhile hears of it again.
"""

import time
from collections.abc import Awaitable, Callable

import trio

from distconv_engine.failures import EngineFault
from distconv_engine.host.benchmark import Benchmark
from distconv_engine.logs import Log
from distconv_engine.status import EngineStatus

DAY_S = 86_400.0
PAUSE_POLL_S = 1.0
"""How often is looked whether all jobs that are held have been paused."""
RECHECK_S_MAX = 3600.0
"""How often at least the wall clock is looked at, which may have been set."""
AGAIN_S = 3600.0
"""How long after a benchmark that failed the schedule waits."""


class BenchmarkScheduler:
    """Keeps the benchmark of an engine fresh; `run` does it.

    Args:
        standing: whose benchmark it is; it says `benchmarking` while nothing new is wanted.
        log: for what a person should know.
        wall: seconds since the epoch.
    """

    def __init__(
        self, engine_status: EngineStatus, log: Log, wall: Callable[[], float] = time.time
    ) -> None:
        self._engine_status = engine_status
        self._log = log
        self._wall = wall
        self._every_s = engine_status.config.benchmark_every_days * DAY_S
        self._not_before_s = 0.0
        self._requested_at: int | None = None
        self._answered: int | None = None
        self._recheck = trio.Event()
        self._done = trio.Event()
        self._done.set()

    def ask(self, requested_at: int) -> bool:
        """Hear of a request, perhaps once more; returns whether it is news."""
        if requested_at in (self._requested_at, self._answered):
            return False
        self._requested_at = requested_at
        self._engine_status.is_benchmarking = True
        self.recheck()
        return True

    def recheck(self) -> None:
        """Look again whether something is due: a job has ended, for example."""
        self._recheck.set()

    async def wait_until_free(self) -> None:
        """Return once nothing is being measured: at once, most of the time, without a checkpoint,
        so that nothing can come between the return and what the caller does then."""
        while not self._done.is_set():
            await self._done.wait()

    def is_due(self) -> bool:
        """Whether to measure: as soon as nothing runs, or, by schedule, if nothing is held."""
        if self._requested_at is not None:
            return True
        return self._left_s() <= 0 and not len(self._engine_status.active_attempts)

    async def run(
        self,
        send_status: Callable[[], Awaitable[None]],
        measure: Callable[[], Awaitable[Benchmark]],
        deliver: Callable[[int | None], Awaitable[None]],
    ) -> None:
        """Measure whenever it is due, for ever.

        Args:
            tell: has the daemon know the standing; returns once it does, or is away.
            measure: takes the figures; what it raises leaves the last ones.
            deliver: reports the new ones, with the request that they answer.
        """
        while True:
            while not self.is_due():
                left_s = self._left_s()  # none: it waits for the end of a job, which stirs
                await self._wait_for_recheck(
                    min(left_s, RECHECK_S_MAX) if left_s > 0 else RECHECK_S_MAX
                )
            self._engine_status.is_benchmarking = True
            await send_status()  # so that nothing more is given
            asked = self._requested_at
            while asked is not None and not self._engine_status.active_attempts.are_all_paused():
                await self._wait_for_recheck(PAUSE_POLL_S)
            if self.is_due() and await self._measure(asked, measure):
                await send_status()
                await deliver(asked)
            else:
                self._engine_status.is_benchmarking = self._requested_at is not None
                await send_status()

    async def _measure(
        self, asked: int | None, measure: Callable[[], Awaitable[Benchmark]]
    ) -> bool:
        """Take the figures, while no job can begin; returns whether there are new ones.

        A request that failed stays with the daemon, but is not tried again before the next start.
        """
        self._done = trio.Event()
        try:
            self._engine_status.benchmark = await measure()
            self._log.info("measured anew", **self._engine_status.benchmark.frames_per_second())
            return True
        except (EngineFault, OSError) as fault:
            self._log.error("benchmark failed, the last one stays", reason=fault)
            self._not_before_s = self._wall() + AGAIN_S
            return False
        finally:
            if asked is not None:
                self._answered = asked
            if self._requested_at == asked:
                self._requested_at = None
            self._engine_status.is_benchmarking = self._requested_at is not None
            self._done.set()

    def _left_s(self) -> float:
        """How long until the schedule asks for it; infinite without one."""
        benchmark = self._engine_status.benchmark
        if benchmark is None or not self._every_s:
            return float("inf")
        due_s = max(benchmark.measured_at + self._every_s, self._not_before_s)
        return due_s - self._wall()

    async def _wait_for_recheck(self, seconds: float) -> None:
        self._recheck = trio.Event()
        with trio.move_on_after(seconds):
            await self._recheck.wait()
