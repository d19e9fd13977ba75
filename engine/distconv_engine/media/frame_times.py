"""Keep the presentation times of one stream's frames, in their order, in bounded memory.

Packets arrive in the order of decoding, so times are sorted within a window that is longer than any
codec reorders frames. They are kept as compressed differences: hardly anything for a constant rate,
about a byte a frame for a variable one.
"""

import zlib
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from heapq import heappop, heappush
from itertools import pairwise
from math import ceil

REORDERED_MAX = 64
"""No codec shows a frame more places after its decoding: 16 in H.264 and HEVC, twice that in fields."""
SAME_RATE = 1.001
"""30 frames a second and 30,000 in 1,001 seconds are one rate to whoever asks for it."""
_ROUNDING = 1e-9
_BLOCK_TIMES = 1 << 14
BYTES_MAX = 64_000_000
"""Of compressed times of one file; more are given up: a film of weeks."""


class Budget:
    """The bytes that all the lists of one file may take together."""

    def __init__(self) -> None:
        self._free = BYTES_MAX

    def take(self, size: int) -> bool:
        """Take `size` bytes; returns False if so many are not left."""
        if size > self._free:
            return False
        self._free -= size
        return True


class FrameTimes:
    """The times of the frames that a player shows, in ticks of the stream's clock."""

    def __init__(self, budget: Budget | None = None) -> None:
        self._budget = budget or Budget()
        self.count = 0
        self.packed_bytes = 0
        self.is_complete = True
        """Whether all times are here, in order, within the bound."""
        self.untimed = 0
        """Frames that came without a time; some containers state only one in several."""
        self.alike_max = 0
        """The most frames at one time; 1: the clock is fine enough to tell them apart."""
        self._alike = 0
        self._window: list[int] = []
        self._block = array("q")
        self._packed: list[bytes] = []
        self._last: int | None = None

    def add(self, ticks: int | None, *, clock_restarts: bool = False) -> None:
        """Take the next packet's time, in the order of decoding."""
        if ticks is None:
            self.untimed += 1
            return
        if clock_restarts:
            self.close()
            self._last = None
        heappush(self._window, ticks)
        if len(self._window) > REORDERED_MAX:
            self._keep(heappop(self._window))

    def close(self) -> None:
        """Take note that no packet precedes those seen so far."""
        while self._window:
            self._keep(heappop(self._window))

    def __iter__(self) -> Iterator[int]:
        """Iterate over the times, once it is closed."""
        for packed in self._packed:
            yield from _unpacked(packed)
        yield from self._block

    def _keep(self, ticks: int) -> None:
        if self._last is not None and ticks < self._last:
            self.is_complete = False
        self._alike = self._alike + 1 if ticks == self._last else 1
        self.alike_max = max(self.alike_max, self._alike)
        self._last = ticks
        self.count += 1
        self._block.append(ticks)
        if len(self._block) >= _BLOCK_TIMES:
            self._pack()

    def _pack(self) -> None:
        packed = _packed(self._block)
        self._block = array("q")
        if not self._budget.take(len(packed)):
            self.is_complete = False
            return
        self._packed.append(packed)
        self.packed_bytes += len(packed)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The times of a stream's frames, and the tick in which they are counted, in seconds."""

    times: FrameTimes
    tick: Fraction


def timeline(times: FrameTimes, tick: Fraction | None) -> Timeline | None:
    """Return the timeline of a stream, or None if it does not say when its frames are shown."""
    if tick is None or not times.is_complete or not times.count:
        return None
    return Timeline(times, tick)


def is_faster(found: Timeline, fps: float) -> bool:
    """Whether there are more frames than `fps` allows: on the whole, or in any second.

    (For a rate below one frame a second: in the time of any frame.)
    """
    window_s = max(1.0, 1 / fps)
    allowed = ceil(fps * window_s - _ROUNDING)
    window = window_s / float(found.tick)
    recent = deque[int](maxlen=allowed)
    first = last = None
    for ticks in found.times:
        # A clock that rounds puts a frame up to half a tick too early.
        if len(recent) == allowed and 0 <= ticks - recent[0] < window - 0.5:
            return True
        recent.append(ticks)
        first, last = ticks if first is None else first, ticks
    if first is None or last is None or last <= first:
        return False
    mean = (found.times.count - 1) / ((last - first) * float(found.tick))
    return mean > fps * SAME_RATE


def _packed(times: "array[int]") -> bytes:
    """Return the first time and the differences between the others, compressed."""
    differences = array("q", [times[0]])
    differences.extend(later - earlier for earlier, later in pairwise(times))
    return zlib.compress(differences.tobytes(), 1)


def _unpacked(packed: bytes) -> Iterator[int]:
    differences = array("q")
    differences.frombytes(zlib.decompress(packed))
    ticks = 0
    for difference in differences:
        ticks += difference
        yield ticks
