"""When an engine measures itself anew; nothing is measured here."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from distconv_engine.attempts.active import Held
from distconv_engine.attempts.context import Attempt
from distconv_engine.attempts.progress_tracker import Tracker
from distconv_engine.benchmark_schedule import AGAIN_S, DAY_S, Upkeep
from distconv_engine.config import Config
from distconv_engine.failures import EngineFault
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.host.benchmark import Benchmark
from distconv_engine.host.capabilities import Capabilities
from distconv_engine.logs import Log
from distconv_engine.status import Standing
from distconvd.model import HeartbeatReply, Job

START_S = 1e9


class Desk:
    """An engine with figures from the moment when virtual time began; measuring takes 5 s."""

    def __init__(self, folder: Path, every_days: float) -> None:
        config = Config(work_dir=folder, disk_reserve_mb=0, benchmark_every_days=every_days)
        self.begun_at_s: list[float] = []
        self.delivered: list[int | None] = []
        self.told: list[str] = []
        self.fails = False
        self.on_tell: Callable[[], object] = int
        self.standing = Standing(config, "e1", "host")
        self.standing.capabilities = Capabilities({}, {})
        self.standing.benchmark = Benchmark("k", {"h264": 1.0}, self.now())
        self.upkeep = Upkeep(self.standing, Log(), self.now)
        self.standing.benchmark_asked = self.upkeep.ask

    def now(self) -> float:
        return START_S + trio.current_time()

    def hold(self) -> Held:
        held = Held(Attempt(Job("1", "file:///a", "h264"), Path(), Tracker(), Controls()))
        self.standing.holdings.add(held)
        return held

    def release(self, held: Held) -> None:
        self.standing.holdings.remove(held)
        self.upkeep.look()

    async def run(self) -> None:
        await self.upkeep.run(self.tell, self.measure, self.deliver)

    async def tell(self) -> None:
        self.told.append(self.standing.status)
        self.on_tell()
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
async def desk(tmp_path: Path, nursery: trio.Nursery) -> Desk:
    desk = Desk(tmp_path, every_days=10)
    nursery.start_soon(desk.run)
    await wait_all_tasks_blocked()
    return desk


async def test_a_request_is_answered_once_though_the_daemon_repeats_it(
    desk: Desk, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        desk.standing.obey(HeartbeatReply("hello", benchmark_requested_at=5))
        assert desk.standing.status == ("idle" if desk.delivered else "benchmarking")
        await trio.sleep(10)
    assert (len(desk.begun_at_s), desk.delivered) == (1, [5])
    assert desk.told == ["benchmarking", "idle"]
    assert desk.standing.benchmark is not None
    assert desk.standing.benchmark.seconds == {"h264": 2.0}
    assert not desk.upkeep.ask(5)
    assert desk.upkeep.ask(6)


async def test_nothing_is_measured_while_a_job_runs_and_no_job_begins_meanwhile(
    desk: Desk, autojump_clock: MockClock
) -> None:
    held = desk.hold()
    desk.upkeep.ask(5)
    await trio.sleep(1000)
    assert not desk.begun_at_s
    desk.release(held)
    await wait_all_tasks_blocked()
    assert len(desk.begun_at_s) == 1
    await desk.upkeep.wait_until_free()
    assert trio.current_time() == desk.begun_at_s[0] + 5
    assert desk.standing.status == "idle"


async def test_a_job_that_is_paused_is_not_waited_for(
    desk: Desk, autojump_clock: MockClock
) -> None:
    held = desk.hold()
    desk.upkeep.ask(5)
    await trio.sleep(10)
    held.attempt.controls.set_paused(True)
    await trio.sleep(10)
    assert desk.delivered == [5]


async def test_a_request_that_comes_while_it_measures_is_answered_next(
    desk: Desk, autojump_clock: MockClock
) -> None:
    desk.upkeep.ask(5)
    await trio.sleep(2)
    desk.upkeep.ask(6)
    await trio.sleep(10)
    assert desk.delivered == [5, 6]


async def test_a_request_that_failed_is_not_tried_again_and_the_old_figures_stay(
    desk: Desk, autojump_clock: MockClock
) -> None:
    desk.fails = True
    desk.upkeep.ask(5)
    await trio.sleep(10)
    desk.upkeep.ask(5)
    await trio.sleep(DAY_S)
    assert (len(desk.begun_at_s), desk.delivered) == (1, [])
    assert desk.standing.status == "idle"
    assert desk.standing.benchmark is not None
    assert desk.standing.benchmark.seconds == {"h264": 1.0}


async def test_the_schedule_begins_in_a_moment_without_jobs_and_keeps_nobody_waiting(
    desk: Desk, autojump_clock: MockClock
) -> None:
    held = desk.hold()
    await trio.sleep(10.5 * DAY_S)
    assert desk.standing.status == "idle"
    desk.release(held)
    await trio.sleep(10)
    assert desk.begun_at_s == [pytest.approx(10.5 * DAY_S)]
    await trio.sleep(10 * DAY_S + 10)
    assert desk.delivered == [None, None]


async def test_a_job_that_comes_before_the_daemon_knows_puts_the_schedule_off(
    desk: Desk, autojump_clock: MockClock
) -> None:
    held: list[Held] = []

    def come() -> None:
        if not held:
            held.append(desk.hold())

    desk.on_tell = come
    await trio.sleep(11 * DAY_S)
    assert not desk.begun_at_s
    assert desk.standing.status == "idle"
    desk.release(held[0])
    await trio.sleep(10)
    assert desk.delivered == [None]


async def test_a_schedule_that_could_not_be_kept_comes_again_later(
    desk: Desk, autojump_clock: MockClock
) -> None:
    desk.fails = True
    await trio.sleep(10 * DAY_S + 2.5 * AGAIN_S)
    gaps = [b - a for a, b in zip(desk.begun_at_s, desk.begun_at_s[1:], strict=False)]
    assert len(gaps) == 2
    assert all(AGAIN_S <= gap <= AGAIN_S + 60 for gap in gaps)


async def test_without_a_schedule_only_a_request_counts(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    desk = Desk(tmp_path, every_days=0)
    nursery.start_soon(desk.run)
    await trio.sleep(100 * DAY_S)
    assert not desk.begun_at_s
    desk.upkeep.ask(5)
    await trio.sleep(10)
    assert desk.delivered == [5]
