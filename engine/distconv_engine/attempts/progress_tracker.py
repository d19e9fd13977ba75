"""Track an attempt's progress: the stages report it, the agent reads it, and neither waits.

A stage's own progress, 0 to 1, is mapped to its share of the whole, so that a bar never goes back.
"""

from collections import defaultdict
from collections.abc import Mapping
from time import monotonic

from distconv_engine.ffmpeg.progress import EncodeProgress
from distconvd.model import ReportedProgress

_SPANS: dict[str, tuple[float, float]] = {
    "preflight": (0.0, 0.0),
    "fetch": (0.0, 0.05),
    "probe": (0.05, 0.07),
    "encode": (0.07, 0.90),
    "verify": (0.90, 0.97),
    "publish": (0.97, 1.0),
    "report": (1.0, 1.0),
}


class Tracker:
    """The current progress of one attempt."""

    def __init__(self) -> None:
        self.version = 0
        """Counts the changes, so that a reader can see whether there is a new one."""
        self.now = ReportedProgress(phase="preflight")
        self._spent_s = defaultdict[str, float](float)
        self._since_s = monotonic()

    def phase(self, name: str) -> None:
        """Enter a stage."""
        self._count_time()
        self._set(ReportedProgress(fraction=_SPANS[name][0], phase=name))

    def part(self, part: float) -> None:
        """Report how much of the current stage is done, 0 to 1."""
        self._set(ReportedProgress(fraction=self._whole(part), phase=self.now.phase))

    def encoding(self, progress: EncodeProgress, part: float, duration_s: float | None) -> None:
        """Report a block of ffmpeg's progress."""
        self._set(
            ReportedProgress(
                fraction=self._whole(part),
                fps=progress.fps,
                speed=progress.speed,
                eta_seconds=progress.eta_s(duration_s),
                phase=self.now.phase,
            )
        )

    def spent_s(self) -> Mapping[str, float]:
        """Return how long each stage has taken so far, in seconds."""
        self._count_time()
        return {name: round(seconds, 4) for name, seconds in self._spent_s.items()}

    def _count_time(self) -> None:
        now_s = monotonic()
        self._spent_s[self.now.phase] += now_s - self._since_s
        self._since_s = now_s

    def _whole(self, part: float) -> float:
        low, high = _SPANS[self.now.phase]
        return round(low + (high - low) * min(1.0, max(0.0, part)), 4)

    def _set(self, progress: ReportedProgress) -> None:
        if progress != self.now:
            self.now = progress
            self.version += 1
