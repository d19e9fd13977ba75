"""Decide when the engine repeats its benchmark: on request, or by schedule.

Figures that were taken during an encode mean nothing, so the engine measures only while no job
runs, and starts none meanwhile. On request, it takes nothing new until it has measured; by
schedule, it waits for a moment without jobs, which may be long in coming, and delays no job for it.

The daemon remembers a request: it repeats it in each heartbeat's reply until a report names it, so
an engine that is killed meanwhile receives it again.
"""

import math
import time
from collections.abc import Awaitable, Callable

import trio

from distconv_engine.failures import EngineFault
from distconv_engine.files import describe_fault
from distconv_engine.host.benchmark import Benchmark
from distconv_engine.logs import Log
from distconv_engine.status import EngineStatus

DAY_S = 86_400.0
PAUSE_POLL_S = 1.0
"""How often to check whether all active attempts are paused."""
RECHECK_S_MAX = 3600.0
"""The schedule is checked at least this often."""
AGAIN_S = 3600.0
"""How long the schedule waits after a benchmark that failed."""


class BenchmarkScheduler:
    """Keeps an engine's benchmark fresh, in `run`.

    Args:
        engine_status: whose benchmark it is; `benchmarking` while the engine wants nothing new.
        log: for what a person should know.
        wall: returns seconds since the epoch.
    """

    def __init__(
        self, engine_status: EngineStatus, log: Log, wall: Callable[[], float] = time.time
    ) -> None:
        self._engine_status = engine_status
        self._log = log
        self._wall = wall
        self._every_s = engine_status.config.benchmark_every_days * DAY_S
        self._not_before_s = -math.inf
        """When the schedule may measure again after a failure, by trio's clock."""
        self._measured_at: float | None = None
        """The benchmark that `_due_s` was computed from."""
        self._due_s = math.inf
        """When the schedule asks for the next benchmark, by trio's clock."""
        self._requested_at: int | None = None
        self._answered: int | None = None
        self._recheck = trio.Event()
        self._done = trio.Event()
        self._done.set()

    def request(self, requested_at: int) -> bool:
        """Note a request, which may be a repeated one; returns whether it is new."""
        if requested_at in (self._requested_at, self._answered):
            return False
        self._requested_at = requested_at
        self._engine_status.is_benchmarking = True
        self.recheck()
        return True

    def recheck(self) -> None:
        """Check again whether a benchmark is due: a job has ended, for example."""
        self._recheck.set()

    async def wait_until_free(self) -> None:
        """Return once nothing is being measured: usually immediately and without a checkpoint, so
        that nothing can come between the return and the caller's next step."""
        while not self._done.is_set():
            await self._done.wait()

    def is_due(self) -> bool:
        """Whether to measure: on request once nothing runs, by schedule if no attempt is active."""
        if self._requested_at is not None:
            return True
        return self._due_in_s() <= 0 and not len(self._engine_status.active_attempts)

    async def run(
        self,
        send_status: Callable[[], Awaitable[None]],
        measure: Callable[[], Awaitable[Benchmark]],
        deliver: Callable[[int | None], Awaitable[None]],
    ) -> None:
        """Measure whenever it is due; never returns.

        Args:
            send_status: sends the status to the daemon; returns once it has it, or is unavailable.
            measure: takes the figures; if it raises, the last ones are kept.
            deliver: reports the new ones, with the request that they answer.
        """
        while True:
            while not self.is_due():
                due_in_s = self._due_in_s()  # 0 or less: the end of a job calls `recheck`
                await self._wait_for_recheck(
                    min(due_in_s, RECHECK_S_MAX) if due_in_s > 0 else RECHECK_S_MAX
                )
            self._engine_status.is_benchmarking = True
            await send_status()  # so that the daemon assigns nothing more
            requested_at = self._requested_at
            while (
                requested_at is not None
                and not self._engine_status.active_attempts.are_all_paused()
            ):
                await self._wait_for_recheck(PAUSE_POLL_S)
            if self.is_due() and await self._measure(requested_at, measure):
                await send_status()
                await deliver(requested_at)
            else:
                self._engine_status.is_benchmarking = self._requested_at is not None
                await send_status()

    async def _measure(
        self, requested_at: int | None, measure: Callable[[], Awaitable[Benchmark]]
    ) -> bool:
        """Measure while no job can start; returns whether there are new figures.

        A request that failed stays with the daemon, but is not tried again before the next start.
        """
        self._done = trio.Event()
        try:
            self._engine_status.benchmark = await measure()
            self._log.info(
                "benchmark repeated", **self._engine_status.benchmark.frames_per_second()
            )
            return True
        except (EngineFault, OSError) as fault:
            self._log.error("benchmark failed, the last one is kept", reason=describe_fault(fault))
            self._not_before_s = trio.current_time() + AGAIN_S
            return False
        finally:
            if requested_at is not None:
                self._answered = requested_at
            if self._requested_at == requested_at:
                self._requested_at = None
            self._engine_status.is_benchmarking = self._requested_at is not None
            self._done.set()

    def _due_in_s(self) -> float:
        """Return the seconds until the schedule asks for a benchmark; infinite without one."""
        benchmark = self._engine_status.benchmark
        if benchmark is None or not self._every_s:
            return float("inf")
        if self._measured_at != benchmark.measured_at:
            # Converted once, and no longer than the interval: the clock may be set back meanwhile.
            left_s = benchmark.measured_at + self._every_s - self._wall()
            self._measured_at = benchmark.measured_at
            self._due_s = trio.current_time() + min(left_s, self._every_s)
        return max(self._due_s, self._not_before_s) - trio.current_time()

    async def _wait_for_recheck(self, seconds: float) -> None:
        self._recheck = trio.Event()
        with trio.move_on_after(seconds):
            await self._recheck.wait()
