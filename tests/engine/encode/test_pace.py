"""Decide from the times of all frames, not from a header, whether a rate is reduced."""

import dataclasses
from fractions import Fraction

import pytest

from distconv_engine.encode.pace import UNCHANGED, Pace, pace_of
from distconv_engine.media.frame_times import FrameTimes, Timeline
from distconv_engine.media.probe import Stream
from distconvd.model import TranscodeOptions

VIDEO = Stream(0, "video", "h264", fps=50.0)
MS = Fraction(1, 1000)


def timeline(*times: int | None) -> Timeline:
    made = FrameTimes()
    for ticks in times:
        made.add(ticks)
    made.close()
    return Timeline(made, MS)


SLOW = timeline(*range(0, 4000, 40))


@pytest.mark.parametrize(
    "fps,found,header,expected",
    [
        (None, SLOW, 600.0, None),
        (30.0, SLOW, 600.0, None),
        (20.0, SLOW, 10.0, 20.0),
        (30.0, None, 50.0, 30.0),
        (60.0, None, 50.0, None),
        (30.0, None, None, None),
        (30.0, timeline(0, None, 80), 50.0, 30.0),
    ],
)
def test_a_rate_is_reduced_if_its_frames_exceed_it(
    fps: float | None, found: Timeline | None, header: float | None, expected: float | None
) -> None:
    video = dataclasses.replace(VIDEO, fps=header)
    assert pace_of(video, TranscodeOptions(max_fps=fps), found).fps == expected


@pytest.mark.parametrize(
    "times,tick",
    [((0, 1, 2), None), ((0, 0, 1, 1), MS / 2), ((0, 0, 0, 1), MS / 3), ((0,) * 2000, None)],
)
def test_a_tick_that_frames_share_is_divided(times: tuple[int, ...], tick: Fraction | None) -> None:
    assert pace_of(VIDEO, TranscodeOptions(), timeline(*times)) == Pace(tick=tick)


def test_sound_alone_has_no_pace() -> None:
    assert pace_of(None, TranscodeOptions(max_fps=10.0), None) == UNCHANGED
