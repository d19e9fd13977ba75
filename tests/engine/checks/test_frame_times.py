"""Compare lists of frame times: what stays, what has moved, and what a decoder may leave out."""

from collections.abc import Sequence
from fractions import Fraction

import pytest

from distconv_engine.checks.frame_times import Deviation, compare
from distconv_engine.media.frame_times import FrameTimes, Timeline, timeline

MS = Fraction(1, 1000)
PHONE: Sequence[int] = (0, 33, 67, 110, 133, 290, 300)


def line(times: Sequence[int], tick: Fraction = MS) -> Timeline:
    made = FrameTimes()
    for ticks in times:
        made.add(ticks)
    made.close()
    return Timeline(made, tick)


def first_deviation(source: Timeline, output: Timeline, *, missing: int) -> Deviation | None:
    return compare(source, output, missing=missing).deviation


@pytest.mark.parametrize("start", [0, 1400, -21])
def test_a_list_that_moves_as_a_whole_is_the_same(start: int) -> None:
    moved = line([start + ticks for ticks in PHONE])
    assert first_deviation(line(PHONE), moved, missing=0) is None


def test_a_coarser_clock_may_round_and_no_more() -> None:
    fine = [ticks * 90 + 44 * (ticks % 2) for ticks in PHONE]
    rounded = [round(ticks / 90) for ticks in fine]
    source = line(fine, Fraction(1, 90_000))
    assert first_deviation(source, line(rounded), missing=0) is None
    rounded[3] += 2
    assert first_deviation(source, line(rounded), missing=0) is not None


@pytest.mark.parametrize("number", range(1, len(PHONE)))
def test_any_single_frame_that_moves_by_two_ticks_is_found_and_named(number: int) -> None:
    moved = list(PHONE)
    moved[number] += 2
    found = first_deviation(line(PHONE), line(moved), missing=0)
    assert found is not None
    assert found.number == number + 1
    assert f"{moved[number] / 1000:.6f} s after the first in the output" in str(found)


def test_a_rate_that_is_evened_out_is_found() -> None:
    even = [round(number * 300 / 6) for number in range(7)]
    assert first_deviation(line(PHONE), line(even), missing=0) is not None


@pytest.mark.parametrize("missing", [(0,), (0, 1), (3,), (6,), (2, 4)])
def test_frames_that_the_decoder_left_out_may_be_missing_anywhere(missing: tuple[int, ...]) -> None:
    shown = [ticks for number, ticks in enumerate(PHONE) if number not in missing]
    assert first_deviation(line(PHONE), line(shown), missing=len(missing)) is None


@pytest.mark.parametrize("claimed", [-1, 0, 1])
def test_more_frames_may_not_be_missing_than_it_left_out(claimed: int) -> None:
    shown = [*PHONE[:2], *PHONE[4:]]
    found = first_deviation(line(PHONE), line(shown), missing=claimed)
    assert found is not None
    assert found.number == 3


def test_a_frame_that_the_source_does_not_have_is_found() -> None:
    found = first_deviation(line(PHONE), line([*PHONE, 340]), missing=-1)
    assert (
        str(found)
        == "frame 8 is 0.340000 s after the first in the output, but missing in the source"
    )


@pytest.mark.parametrize("restart", [100_000, -100_000])
def test_a_jump_of_the_clock_is_closed_and_times_go_on_behind_it(restart: int) -> None:
    source = FrameTimes()
    for ticks in (0, 40, 80):
        source.add(ticks)
    for number, ticks in enumerate((0, 33, 90)):
        source.add(restart + ticks, clock_restarts=number == 0 and restart < 0)
    source.close()
    before = Timeline(source, MS)
    assert first_deviation(before, line((0, 40, 80, 120, 153, 210)), missing=0) is None
    found = first_deviation(before, line((0, 40, 80, 120, 160, 210)), missing=0)
    assert found is not None
    assert found.number == 5


@pytest.mark.parametrize("times", [(), (None, None)], ids=["empty", "no times"])
def test_a_list_with_gaps_is_no_timeline(times: Sequence[int | None]) -> None:
    made = FrameTimes()
    for ticks in times:
        made.add(ticks)
    made.close()
    assert timeline(made, MS) is None
    assert timeline(made, None) is None


@pytest.mark.parametrize("known", [(0, 3, 6), (2, 3), (0, 1, 2, 3, 4, 5)])
def test_where_only_some_frames_have_a_time_those_are_compared(known: tuple[int, ...]) -> None:
    source = FrameTimes()
    for number, ticks in enumerate(PHONE):
        source.add(ticks if number in known else None)
    source.close()
    before = Timeline(source, MS)
    shown = PHONE[known[0] :]
    assert first_deviation(before, line(shown), missing=0) is None
    moved = [ticks + 3 * (ticks == PHONE[known[-1]]) for ticks in shown]
    assert first_deviation(before, line(moved), missing=0) is not None


def test_a_long_film_with_few_times_is_compared() -> None:
    source = FrameTimes()
    for number in range(50_000):
        source.add(number * 40 if number % 25 == 0 else None)
    source.close()
    even = line([number * 40 for number in range(50_000)])
    assert first_deviation(Timeline(source, MS), even, missing=0) is None


def test_frames_that_share_a_tick_may_lie_anywhere_in_it() -> None:
    before = line((0, 0, 1, 1, 2, 2))
    assert first_deviation(before, line(range(6), MS / 2), missing=0) is None
    assert first_deviation(before, line((0, 1, 2, 3, 8, 9), MS / 2), missing=0) is not None


@pytest.mark.parametrize("shift", [0, 1400, -21])
def test_how_far_all_of_it_has_moved_is_told(shift: int) -> None:
    moved = line([shift + ticks for ticks in PHONE[2:]])
    assert compare(line(PHONE), moved, missing=2).shift_s == pytest.approx(shift / 1000)


def test_what_precedes_the_first_key_frame_is_missing_first_of_all() -> None:
    source, output = line(range(0, 2000, 40)), line(range(0, 1600, 40))
    assert compare(source, output, missing=10, before_key=10).shift_s == pytest.approx(-0.4)
    assert compare(source, output, missing=10).shift_s == 0
