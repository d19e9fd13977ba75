"""Parse ffmpeg's `-progress` output into values."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EncodeProgress:
    """One block of `-progress`."""

    frame: int = 0
    fps: float | None = None
    speed: float | None = None
    """Seconds of media encoded per second."""
    out_time_s: float | None = None
    total_bytes: int = 0
    dup_frames: int = 0
    drop_frames: int = 0

    def eta_s(self, duration_s: float | None) -> float | None:
        """Return the seconds left at the present speed; None if that is unknown."""
        if not duration_s or not self.speed or self.out_time_s is None:
            return None
        return max(0.0, duration_s - self.out_time_s) / self.speed

    def fraction(self, duration_s: float | None) -> float:
        """Return the completed part, 0 to 1; 0 if the duration is unknown."""
        if not duration_s or self.out_time_s is None:
            return 0.0
        return min(1.0, max(0.0, self.out_time_s / duration_s))


class ProgressParser:
    """Collects `key=value` lines and passes on one `EncodeProgress` per block."""

    def __init__(self, consume: Callable[[EncodeProgress], None]) -> None:
        self._consume = consume
        self._block: dict[str, str] = {}

    def line(self, text: str) -> None:
        """Take one line; the line `progress=…` ends a block."""
        key, _, value = text.partition("=")
        self._block[key] = value.strip()
        if key == "progress":
            self._consume(_parse(self._block))
            self._block = {}


def _parse(block: dict[str, str]) -> EncodeProgress:
    out_time_us = _number(block.get("out_time_us"))
    return EncodeProgress(
        frame=int(_number(block.get("frame")) or 0),
        fps=_number(block.get("fps")),
        speed=_number((block.get("speed") or "").rstrip("x")),
        out_time_s=None if out_time_us is None else out_time_us / 1e6,
        total_bytes=int(_number(block.get("total_size")) or 0),
        dup_frames=int(_number(block.get("dup_frames")) or 0),
        drop_frames=int(_number(block.get("drop_frames")) or 0),
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None  # `N/A`, before the first frame
