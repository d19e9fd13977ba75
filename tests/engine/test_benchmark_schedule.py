"""Test when an engine repeats its benchmark, with a fake measurement."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from tests.engine.attempts import make_attempt
from trio.testing import MockClock, wait_all_tasks_blocked

from distconv_engine.attempts.active import ActiveAttempt
from distconv_engine.benchmark_schedule import AGAIN_S, DAY_S, BenchmarkScheduler
from distconv_engine.config import Config
from distconv_engine.failures import EngineFault
from distconv_engine.host.benchmark import Benchmark
from distconv_engine.host.capabilities import Capabilities
from distconv_engine.logs import Log
from distconv_engine.status import EngineStatus
from distconvd.model import HeartbeatReply, Job

START_S = 1e9


class SchedulerFixture:
    """An engine with figures from the start of virtual time; measuring takes 5 s."""

    def __init__(self, folder: Path, every_days: float) -> None:
        config = Config(work_dir=folder, disk_reserve_mb=0, benchmark_every_days=every_days)
        self.begun_at_s: list[float] = []
        self.delivered: list[int | None] = []
        self.statuses_sent: list[str] = []
        self.fails = False
        self.clock_step_s = 0.0
        self.on_status_sent: Callable[[], object] = int
        self.engine_status = EngineStatus(config, "e1", "host")
        self.engine_status.capabilities = Capabilities({}, {})
        self.engine_status.benchmark = Benchmark("k", {"h264": 1.0}, self.now())
        self.scheduler = BenchmarkScheduler(self.engine_status, Log(), self.now)
        self.engine_status.on_benchmark_request = self.scheduler.request

    def now(self) -> float:
        return START_S + trio.current_time() + self.clock_step_s

    def add_active(self) -> ActiveAttempt:
        active = ActiveAttempt(
            make_attempt(Job("1", "file:///a", "h264"), self.engine_status.config.work_dir)
        )
        self.engine_status.active_attempts.add(active)
        return active

    def release(self, active: ActiveAttempt) -> None:
        self.engine_status.active_attempts.remove(active)
        self.scheduler.recheck()

    async def run(self) -> None:
        await self.scheduler.run(self.send_status, self.measure, self.deliver)

    async def send_status(self) -> None:
        self.statuses_sent.append(self.engine_status.status)
        self.on_status_sent()
        await trio.lowlevel.checkpoint()

    async def measure(self) -> Benchmark:
        self.begun_at_s.append(trio.current_time())
        await trio.sleep(5)
        if self.fails:
            raise EngineFault("the driver hangs")
        return Benchmark("k", {"h264": 2.0}, self.now())

    async def deliver(self, requested_at: int | None) -> None:
        self.delivered.append(requested_at)
        await trio.lowlevel.checkpoint()


@pytest.fixture
async def scheduled(tmp_path: Path, nursery: trio.Nursery) -> SchedulerFixture:
    scheduled = SchedulerFixture(tmp_path, every_days=10)
    nursery.start_soon(scheduled.run)
    await wait_all_tasks_blocked()
    return scheduled


async def test_a_request_is_answered_once_though_the_daemon_repeats_it(
    scheduled: SchedulerFixture, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        scheduled.engine_status.apply(HeartbeatReply("hello", benchmark_requested_at=5))
        assert scheduled.engine_status.status == ("idle" if scheduled.delivered else "benchmarking")
        await trio.sleep(10)
    assert (len(scheduled.begun_at_s), scheduled.delivered) == (1, [5])
    assert scheduled.statuses_sent == ["benchmarking", "idle"]
    assert scheduled.engine_status.benchmark is not None
    assert scheduled.engine_status.benchmark.seconds == {"h264": 2.0}
    assert not scheduled.scheduler.request(5)
    assert scheduled.scheduler.request(6)


async def test_the_benchmark_waits_for_running_jobs_and_jobs_wait_for_the_benchmark(
    scheduled: SchedulerFixture, autojump_clock: MockClock
) -> None:
    active = scheduled.add_active()
    scheduled.scheduler.request(5)
    await trio.sleep(1000)
    assert not scheduled.begun_at_s
    scheduled.release(active)
    await wait_all_tasks_blocked()
    assert len(scheduled.begun_at_s) == 1
    await scheduled.scheduler.wait_until_free()
    assert trio.current_time() == scheduled.begun_at_s[0] + 5
    assert scheduled.engine_status.status == "idle"


async def test_a_requested_benchmark_does_not_wait_for_a_paused_job(
    scheduled: SchedulerFixture, autojump_clock: MockClock
) -> None:
    active = scheduled.add_active()
    scheduled.scheduler.request(5)
    await trio.sleep(10)
    active.attempt.controls.set_paused(True)
    await trio.sleep(10)
    assert scheduled.delivered == [5]


async def test_a_request_during_a_benchmark_is_answered_by_the_next_one(
    scheduled: SchedulerFixture, autojump_clock: MockClock
) -> None:
    scheduled.scheduler.request(5)
    await trio.sleep(2)
    scheduled.scheduler.request(6)
    await trio.sleep(10)
    assert scheduled.delivered == [5, 6]


async def test_a_failed_request_is_not_tried_again_and_the_old_figures_are_kept(
    scheduled: SchedulerFixture, autojump_clock: MockClock
) -> None:
    scheduled.fails = True
    scheduled.scheduler.request(5)
    await trio.sleep(10)
    scheduled.scheduler.request(5)
    await trio.sleep(DAY_S)
    assert (len(scheduled.begun_at_s), scheduled.delivered) == (1, [])
    assert scheduled.engine_status.status == "idle"
    assert scheduled.engine_status.benchmark is not None
    assert scheduled.engine_status.benchmark.seconds == {"h264": 1.0}


async def test_the_scheduled_benchmark_starts_without_jobs_and_delays_none(
    scheduled: SchedulerFixture, autojump_clock: MockClock
) -> None:
    active = scheduled.add_active()
    await trio.sleep(10.5 * DAY_S)
    assert scheduled.engine_status.status == "idle"
    scheduled.release(active)
    await trio.sleep(10)
    assert scheduled.begun_at_s == [pytest.approx(10.5 * DAY_S)]
    await trio.sleep(10 * DAY_S + 10)
    assert scheduled.delivered == [None, None]


async def test_a_job_that_starts_before_the_daemon_has_the_status_postpones_the_scheduled_benchmark(
    scheduled: SchedulerFixture, autojump_clock: MockClock
) -> None:
    active: list[ActiveAttempt] = []

    def come() -> None:
        if not active:
            active.append(scheduled.add_active())

    scheduled.on_status_sent = come
    await trio.sleep(11 * DAY_S)
    assert not scheduled.begun_at_s
    assert scheduled.engine_status.status == "idle"
    scheduled.release(active[0])
    await trio.sleep(10)
    assert scheduled.delivered == [None]


async def test_a_scheduled_benchmark_that_failed_is_tried_again_later(
    scheduled: SchedulerFixture, autojump_clock: MockClock
) -> None:
    scheduled.fails = True
    await trio.sleep(10 * DAY_S + 2.5 * AGAIN_S)
    gaps = [b - a for a, b in zip(scheduled.begun_at_s, scheduled.begun_at_s[1:], strict=False)]
    assert len(gaps) == 2
    assert all(AGAIN_S <= gap <= AGAIN_S + 60 for gap in gaps)


@pytest.mark.parametrize("step_s", [-400 * DAY_S, 400 * DAY_S])
async def test_a_step_of_the_clock_neither_delays_nor_repeats_the_scheduled_benchmark(
    scheduled: SchedulerFixture, autojump_clock: MockClock, step_s: float
) -> None:
    await trio.sleep(DAY_S)
    scheduled.clock_step_s = step_s
    scheduled.scheduler.recheck()
    await trio.sleep(20 * DAY_S)
    assert scheduled.begun_at_s == [
        pytest.approx(10 * DAY_S, abs=10),
        pytest.approx(20 * DAY_S, abs=10),
    ]


async def test_without_a_schedule_only_a_request_counts(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    scheduled = SchedulerFixture(tmp_path, every_days=0)
    nursery.start_soon(scheduled.run)
    await trio.sleep(100 * DAY_S)
    assert not scheduled.begun_at_s
    scheduled.scheduler.request(5)
    await trio.sleep(10)
    assert scheduled.delivered == [5]
