"""Decide whether frames keep their own times or get a lower rate; pure.

What a header says of a rate is a guess, so the decision comes from the times of all frames. A rate
that rises after a minute, or exceeds the greatest for a second, counts; one that a header invents does not.
"""

from dataclasses import dataclass
from fractions import Fraction

from distconv_engine.media.frame_times import SAME_RATE, Timeline, is_faster
from distconv_engine.media.probe import Stream
from distconvd.model import TranscodeOptions

_ALIKE_MAX = 1000
"""More frames at one time than this are no rate but a broken clock."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When the frames of a video are shown."""

    fps: float | None = None
    """The constant rate to which it is reduced; None: every frame keeps its own time."""
    tick: Fraction | None = None
    """None: the source's tick is fine enough for its rate. Else a part of it, in seconds, so that
    frames which the source shows at one time can follow one another."""


UNCHANGED = Pace()
"""Every frame keeps its time."""


def pace_of(stream: Stream | None, options: TranscodeOptions, timeline: Timeline | None) -> Pace:
    """Return the pace of a video; without a timeline, its header decides."""
    if stream is None:
        return UNCHANGED
    fps = options.max_fps if _is_too_fast(stream, options.max_fps, timeline) else None
    if fps is not None or timeline is None or not 1 < timeline.times.alike_max <= _ALIKE_MAX:
        return Pace(fps)
    return Pace(tick=timeline.tick / timeline.times.alike_max)


def _is_too_fast(stream: Stream, fps: float | None, timeline: Timeline | None) -> bool:
    if fps is None:
        return False
    if timeline is None or timeline.times.untimed:
        return stream.fps is not None and stream.fps > fps * SAME_RATE
    return is_faster(timeline, fps)
