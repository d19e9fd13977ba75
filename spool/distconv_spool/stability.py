"""Decide when a file that somebody else writes is complete: when it has stopped changing.

Pure: observations and their times go in, stable files come out. One observation is compared with
another, by the observer's own monotonic clock, never a file's time with our time: clocks that
disagree over NFS do no harm. Only size and modification time count; inode numbers are not stable on
every SMB mount.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Observed(NamedTuple):
    """One file at one moment."""

    name: str
    size_bytes: int
    mtime_ns: int
    whole: bool = False
    """Whether it is complete already: it came by rename, or is not a plain file."""

    def same_file(self, other: "Observed") -> bool:
        """Whether size and time are equal, so that the content is most likely the same."""
        return (self.size_bytes, self.mtime_ns) == (other.size_bytes, other.mtime_ns)


class StabilityTracker:
    """Remembers the last observation of each file that still exists, and nothing else.

    Args:
        settle_s: how long a file must stay the same.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._since: dict[str, tuple[Observed, float]] = {}

    def observe(self, now_s: float, files: Iterable[Observed]) -> list[Observed]:
        """Observe all existing files; return those that are stable, the oldest first.

        A file that is no longer among them is forgotten. An empty file is never stable.
        """
        before, self._since = self._since, {}
        stable: list[Observed] = []
        for observed in files:
            same, since_s = before.get(observed.name, (observed, now_s))
            if not same.same_file(observed):
                since_s = now_s
            self._since[observed.name] = (observed, since_s)
            if observed.whole or self._is_stable(observed, since_s, now_s):
                stable.append(observed)
        return sorted(stable, key=lambda observed: (observed.mtime_ns, observed.name))

    def _is_stable(self, observed: Observed, since_s: float, now_s: float) -> bool:
        return observed.size_bytes > 0 and now_s - since_s >= self._settle_s
