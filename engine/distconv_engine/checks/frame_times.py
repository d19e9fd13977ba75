"""Compare the times of an output's frames with those of its source, frame by frame.

Every frame keeps its time, to the tick of the source's clock: only the beginning may move, as all of
a file moves. An output's clock may be coarser (Matroska: ms), so a time may be off by one of its ticks.
A decoder shows no frame for some packets (alternate references, second fields, leading pictures of an
open group), so frames of the source may be missing, as many as the decoder left out and no more.

Where the source's clock jumps, ffmpeg closes the gap, so times are compared on each side of a jump.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, lcm

from distconv_engine.media.frame_times import REORDERED_MAX, FrameTimes
from distconv_engine.media.packets import JUMP_S

_LEADING_MAX = REORDERED_MAX
"""The most frames that may be missing in front of the first, but for those before the first key frame."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The times of a stream's frames, and the tick in which they are counted, in seconds."""

    times: FrameTimes
    tick: Fraction


def timeline(times: FrameTimes | None, tick: Fraction | None) -> Timeline | None:
    """Return the timeline of a stream of which every frame has a time, else None."""
    if times is None or tick is None or not times.is_complete or not times.count:
        return None
    return Timeline(times, tick)


@dataclass(frozen=True, slots=True)
class Deviation:
    """The first frame of an output that is not where its source shows it; in seconds from the first frame."""

    number: int
    expected_s: float | None
    """None: the source has no such frame."""
    found_s: float

    def __str__(self) -> str:
        there = "missing" if self.expected_s is None else f"{self.expected_s:.6f} s"
        return (
            f"frame {self.number} is {self.found_s:.6f} s after the first in the output, "
            f"but {there} in the source"
        )


def first_deviation(
    source: Timeline, output: Timeline, *, missing: int, before_key: int = 0
) -> Deviation | None:
    """Return the first frame with another time, or None if all are where they belong; pure.

    Args:
        source: of the packets that a player shows.
        output: of all the frames encoded.
        missing: how many of the source's packets gave no frame.
        before_key: how many packets come before the source's first key frame.
    """
    best: Deviation | None = None
    for skipped in range(min(max(missing, 0), _LEADING_MAX + before_key) + 1):
        found = _Comparison(source, output, missing - skipped).run(skipped)
        if found is None:
            return None
        if best is None or found.number > best.number:
            best = found
    return best


def exceeds(times: Timeline, fps: float) -> bool:
    """Whether any second, or any time of one frame at that rate, has more frames than `fps` allows."""
    window_s = max(1.0, 1 / fps)
    allowed = ceil(fps * window_s - 1e-9)
    window = window_s / float(times.tick)
    recent = deque[int](maxlen=allowed)
    for ticks in times.times:
        if len(recent) == allowed and 0 <= ticks - recent[0] < window - 0.5:
            return True
        recent.append(ticks)
    return False


class _Comparison:
    """One comparison, in integers: both clocks are counted in a unit that divides both ticks."""

    def __init__(self, source: Timeline, output: Timeline, missing: int) -> None:
        self._unit = lcm(source.tick.denominator, output.tick.denominator)
        self._source = _in_units(source, self._unit)
        self._output = _in_units(output, self._unit)
        self._slack = int(output.tick * self._unit)
        self._jump = int(JUMP_S * self._unit)
        self._missing = missing

    def run(self, skipped: int) -> Deviation | None:
        """Compare; the output's first frame is the source's frame number `skipped`."""
        for _ in range(skipped):
            next(self._source, None)
        first_found = next(self._output, None)
        first = next(self._source, None)
        if first_found is None or first is None:
            return None  # the counts, which other checks compare, say so
        self._last, self._shift = first, first_found - first
        for number, found in enumerate(self._output, 2):
            expected = self._match(found)
            if expected != found:
                expected_s = None if expected is None else (expected - first_found) / self._unit
                return Deviation(number, expected_s, (found - first_found) / self._unit)
        return None

    def _match(self, found: int) -> int | None:
        """Take the source's frame that `found` should be; returns `found` if it is there.

        Otherwise returns where it should be, or None after the source's last frame.
        """
        jumped = False
        for ticks in self._source:
            jumped = jumped or not 0 <= ticks - self._last <= self._jump
            self._last = ticks
            late = found - (ticks + self._shift)
            if abs(late) <= self._slack:
                return found
            if jumped:
                self._shift = found - ticks
                return found
            if late < 0 or self._missing <= 0:
                return ticks + self._shift
            self._missing -= 1
        return None


def _in_units(timeline: Timeline, unit: int) -> Iterator[int]:
    factor = int(timeline.tick * unit)
    return (ticks * factor for ticks in timeline.times)
