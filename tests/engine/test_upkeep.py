"""When an engine measures itself anew; nothing is measured here."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from distconv_engine.attempt import Attempt
from distconv_engine.benchmark import Benchmark
from distconv_engine.capabilities import Capabilities
from distconv_engine.config import Config
from distconv_engine.held import Held
from distconv_engine.running import Controls
from distconv_engine.standing import Standing
from distconv_engine.tracker import Tracker
from distconv_engine.upkeep import AGAIN_S, DAY_S, LOOK_S_MAX, Upkeep
from distconvd.model import HeartbeatReply, Job


class Desk:
    """An engine that measured itself at time 0, with a clock to turn."""

    def __init__(self, folder: Path, every_days: float) -> None:
        config = Config(work_dir=folder, disk_reserve_mb=0, benchmark_every_days=every_days)
        self.now_s = 0.0
        self.woken = 0
        self.standing = Standing(config, "e1", "host")
        self.standing.capabilities = Capabilities({}, {})
        self.standing.benchmark = Benchmark("k", {"h264": 1.0}, 0.0)
        self.upkeep = Upkeep(self.standing, self.wake, lambda: self.now_s)
        self.standing.benchmark_asked = self.upkeep.ask

    def wake(self) -> None:
        self.woken += 1

    def hold(self) -> Held:
        attempt = Attempt(Job("1", "file:///a", "h264"), Path(), Tracker(), Controls())
        held = Held(attempt)
        self.standing.holdings.add(held)
        return held


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, every_days=10)


def test_a_request_in_a_heartbeats_reply_is_due_until_it_is_answered(desk: Desk) -> None:
    assert not desk.upkeep.is_due()
    desk.standing.obey(HeartbeatReply("hello", benchmark_requested_at=5))
    assert desk.upkeep.is_due()
    assert desk.standing.status == "benchmarking"
    desk.upkeep.end(desk.upkeep.begin(), worked=True)
    assert not desk.upkeep.is_due()
    assert desk.standing.status == "idle"


def test_what_was_answered_is_no_request_any_more_though_the_daemon_repeats_it(desk: Desk) -> None:
    for _ in range(2):
        desk.upkeep.ask(5)
    assert desk.woken == 1
    desk.upkeep.end(desk.upkeep.begin(), worked=False)
    desk.upkeep.ask(5)
    assert not desk.upkeep.is_due()
    desk.upkeep.ask(6)
    assert desk.upkeep.is_due()


def test_a_request_that_comes_while_it_measures_is_answered_next(desk: Desk) -> None:
    answers = desk.upkeep.begin()
    desk.upkeep.ask(5)
    desk.upkeep.end(answers, worked=True)
    assert desk.upkeep.is_due()
    assert desk.standing.status == "benchmarking"


def test_the_schedule_waits_for_a_moment_without_jobs_and_a_request_does_not(desk: Desk) -> None:
    desk.now_s = 9.9 * DAY_S
    assert not desk.upkeep.is_due()
    desk.now_s = 10 * DAY_S
    assert desk.upkeep.is_due()
    held = desk.hold()
    assert not desk.upkeep.is_due()
    assert desk.standing.status == "idle"
    desk.upkeep.ask(5)
    assert desk.upkeep.is_due()
    desk.upkeep.end(5, worked=True)
    desk.standing.holdings.remove(held)


def test_a_schedule_that_could_not_be_kept_comes_again_later(desk: Desk) -> None:
    desk.now_s = 10 * DAY_S
    desk.upkeep.begin()
    desk.upkeep.put_off()
    assert desk.standing.status == "idle"
    assert desk.upkeep.is_due()
    desk.upkeep.end(desk.upkeep.begin(), worked=False)
    assert not desk.upkeep.is_due()
    desk.now_s += AGAIN_S
    assert desk.upkeep.is_due()


def test_without_a_schedule_only_a_request_counts(tmp_path: Path) -> None:
    desk = Desk(tmp_path, every_days=0)
    desk.now_s = 1e6 * DAY_S
    assert not desk.upkeep.is_due()


async def test_the_schedule_wakes_the_engine(
    desk: Desk, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(desk.upkeep.watch)
    await trio.sleep(2 * LOOK_S_MAX)
    assert desk.woken == 0
    desk.now_s = 10 * DAY_S
    await trio.sleep(LOOK_S_MAX)
    assert desk.woken > 0


def test_held_jobs_are_still_when_all_are_paused(desk: Desk) -> None:
    assert desk.standing.holdings.are_still()
    held = desk.hold()
    assert not desk.standing.holdings.are_still()
    held.attempt.controls.set_paused(True)
    assert desk.standing.holdings.are_still()
