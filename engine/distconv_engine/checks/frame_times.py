"""Compare the times of an output's frames with those of its source, frame by frame.

Every frame keeps its time, to the tick of the source's clock: only the beginning may move, as all of
a file moves. An output's clock may be coarser (Matroska: ms), so a time may be off by one of its ticks.
A decoder shows no frame for some packets (alternate references, second fields, leading pictures of an
open group), so frames of the source may be missing, as many as the decoder left out and no more.

Where the source's clock jumps, ffmpeg closes the gap, so times are compared on each side of a jump.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import lcm

from distconv_engine.media.frame_times import REORDERED_MAX, Timeline
from distconv_engine.media.packets import JUMP_S

_LEADING_MAX = REORDERED_MAX
"""The most frames that may be missing in front of the first, but for those before the first key frame."""


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


@dataclass(frozen=True, slots=True)
class Comparison:
    """What comparing an output's times with its source's has shown."""

    deviation: Deviation | None
    """None: every frame is where it belongs."""
    shift_s: float
    """By how much the output as a whole is later."""


def compare(source: Timeline, output: Timeline, *, missing: int, before_key: int = 0) -> Comparison:
    """Compare the times of all frames; pure.

    Args:
        source: of the packets that a player shows.
        output: of all the frames encoded.
        missing: how many of the source's packets gave no frame.
        before_key: how many packets come before the source's first key frame.
    """
    best: Comparison | None = None
    # With a constant rate several fit. What a decoder leaves out is first of all what precedes a key.
    candidates = range(min(max(missing, 0), _LEADING_MAX + before_key) + 1)
    for skipped in sorted(candidates, key=lambda number: abs(number - before_key)):
        found = _Run(source, output, missing - skipped).run(skipped)
        if found.deviation is None:
            return found
        if best is None or best.deviation is None or found.deviation.number > best.deviation.number:
            best = found
    assert best is not None
    return best


class _Run:
    """One comparison, in integers: both clocks are counted in a unit that divides both ticks."""

    def __init__(self, source: Timeline, output: Timeline, missing: int) -> None:
        self._unit = lcm(source.tick.denominator, output.tick.denominator)
        self._source = _in_units(source, self._unit)
        self._output = _in_units(output, self._unit)
        # Where frames share a tick, the output has them apart, within that tick.
        shares = source.tick if source.times.alike_max > 1 else 0
        self._slack = int((output.tick + shares) * self._unit)
        self._jump = int(JUMP_S * self._unit)
        self._ahead: int | None = None
        """The source's next frame, if it has been looked at and not taken."""
        self._missing, self._untimed = missing, source.times.untimed

    def run(self, skipped: int) -> Comparison:
        """Compare; the output's first frame is the source's frame number `skipped`."""
        for _ in range(skipped):
            next(self._source, None)
        first_found, first = next(self._output, None), next(self._source, None)
        if first_found is None or first is None:
            return Comparison(None, 0.0)  # the counts, which other checks compare, say so
        self._last, self._shift = first, first_found - first
        shift_s = self._shift / self._unit
        for number, found in enumerate(self._output, 2):
            expected = self._match(found)
            if expected != found:
                expected_s = None if expected is None else (expected - first_found) / self._unit
                deviation = Deviation(number, expected_s, (found - first_found) / self._unit)
                return Comparison(deviation, shift_s)
        return Comparison(None, shift_s)

    def _match(self, found: int) -> int | None:
        """Take the source's frame that `found` should be; returns `found` if it is there.

        Otherwise returns where it should be, or None after the source's last frame.
        """
        jumped = False
        while (ticks := self._next()) is not None:
            jumped = jumped or not 0 <= ticks - self._last <= self._jump
            late = found - (ticks + self._shift)
            if late < -self._slack and self._untimed and not jumped:
                self._untimed -= 1
                self._ahead = ticks
                return found
            self._last = ticks
            if abs(late) <= self._slack:
                return found
            if jumped:
                self._shift = found - ticks
                return found
            if late < 0 or self._missing <= 0:
                return ticks + self._shift
            self._missing -= 1
        self._untimed -= 1
        return found if self._untimed >= 0 else None

    def _next(self) -> int | None:
        ahead, self._ahead = self._ahead, None
        return next(self._source, None) if ahead is None else ahead


def _in_units(timeline: Timeline, unit: int) -> Iterator[int]:
    factor = int(timeline.tick * unit)
    return (ticks * factor for ticks in timeline.times)
