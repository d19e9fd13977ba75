"""The list of frame times: in order, exact, and small."""

import random
from collections.abc import Callable
from fractions import Fraction

import pytest

from distconv_engine.media import frame_times
from distconv_engine.media.frame_times import FrameTimes, Timeline, is_faster


def times_in(times: list[int]) -> FrameTimes:
    made = FrameTimes()
    for ticks in times:
        made.add(ticks)
    made.close()
    return made


def test_times_come_back_in_the_order_of_showing() -> None:
    decoded = [0, 160, 80, 40, 120, 320, 240, 200, 280]
    assert list(times_in(decoded)) == sorted(decoded)


def test_a_long_list_is_exact_and_takes_two_bytes_a_frame() -> None:
    rng = random.Random(14)
    times = [0]
    for _ in range(100_000):
        times.append(times[-1] + rng.randint(2000, 2255))
    found = times_in(times)
    assert list(found) == times
    assert (found.count, found.is_complete) == (len(times), True)
    assert found.packed_bytes < 2 * len(times)


def test_a_list_beyond_the_bound_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_times, "BYTES_MAX", 1000)
    found = times_in([number * number for number in range(100_000)])
    assert not found.is_complete
    assert found.packed_bytes <= 1000


@pytest.mark.parametrize("late", [frame_times.REORDERED_MAX, frame_times.REORDERED_MAX + 1])
def test_a_frame_may_be_late_by_as_much_as_codecs_reorder(late: int) -> None:
    times = [*range(1, late + 1), 0]
    assert times_in(times).is_complete == (late <= frame_times.REORDERED_MAX)


def test_a_clock_that_restarts_begins_another_list() -> None:
    found = FrameTimes()
    for ticks in (100, 300, 200):
        found.add(ticks)
    for number, ticks in enumerate((0, 200, 100)):
        found.add(ticks, clock_restarts=number == 0)
    found.close()
    assert list(found) == [100, 200, 300, 0, 100, 200]
    assert found.is_complete


@pytest.mark.parametrize("times,alike", [([0, 1, 2], 1), ([0, 0, 1, 1, 1, 2], 3), ([], 0)])
def test_frames_at_one_time_are_counted(times: list[int], alike: int) -> None:
    found = times_in(times)
    assert found.alike_max == alike
    assert found.is_complete


def constant(fps: Fraction | int, clock: int, seconds: int = 5) -> Timeline:
    times = [round(number * clock / fps) for number in range(int(seconds * fps))]
    return Timeline(times_in(times), Fraction(1, clock))


def rising(clock: int) -> Timeline:
    """Ten frames a second for ten seconds, then 60 for one: 14 on the whole."""
    slow = [number * clock // 10 for number in range(100)]
    return Timeline(
        times_in([*slow, *(10 * clock + number * clock // 60 for number in range(60))]),
        Fraction(1, clock),
    )


@pytest.mark.parametrize("clock", [1000, 90_000])
@pytest.mark.parametrize(
    "made,fps,expected",
    [
        (lambda clock: constant(30, clock), 30, False),
        (lambda clock: constant(30, clock), 29.9, True),
        (lambda clock: constant(Fraction(30_000, 1001), clock), 29.97, False),
        (lambda clock: constant(Fraction(24_000, 1001), clock), 23.976, False),
        (lambda clock: constant(144, clock), 144, False),
        (lambda clock: constant(144, clock), 143, True),
        (lambda clock: constant(25, clock), 24, True),
        (lambda clock: constant(2000, clock), 1000, True),
        (lambda clock: constant(1, clock), 0.5, True),
        (lambda clock: constant(1, clock), 1, False),
        (rising, 30, True),
        (rising, 60, False),
        (lambda clock: Timeline(times_in([0]), Fraction(1, clock)), 0.01, False),
    ],
)
def test_a_rate_is_exceeded_on_the_whole_or_in_any_second(
    made: Callable[[int], Timeline], fps: float, expected: bool, clock: int
) -> None:
    assert is_faster(made(clock), fps) == expected
