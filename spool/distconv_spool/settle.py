"""When is a file that somebody else writes complete? When it has stopped changing.

Pure: what was seen and when go in, names come out. What is compared is one look with another, by
the observer's own monotonic clock, never a file's time with our time: clocks that disagree over
NFS do no harm. Only size and modification time count; inode numbers are not stable on every SMB
mount.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Observed(NamedTuple):
    """One file at one look."""

    name: str
    size_bytes: int
    mtime_ns: int
    whole: bool = False
    """It need not settle: it came by rename, or is nothing that could grow into a drop."""

    def same_file(self, other: "Observed") -> bool:
        """Whether both looks saw the same content, as far as a look can tell."""
        return (self.size_bytes, self.mtime_ns) == (other.size_bytes, other.mtime_ns)


class StabilityTracker:
    """Remembers the last look, and only that: its memory is that of the files it was shown.

    Args:
        settle_s: how long a file must stay the same.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._since: dict[str, tuple[Observed, float]] = {}

    def observe(self, now_s: float, files: Iterable[Observed]) -> list[Observed]:
        """Take one look at everything there is; return what has settled, oldest file first.

        What is not shown any more is forgotten. An empty file never settles.
        """
        before, self._since = self._since, {}
        stable: list[Observed] = []
        for observed in files:
            same, since_s = before.get(observed.name, (observed, now_s))
            if not same.same_file(observed):
                since_s = now_s
            self._since[observed.name] = (observed, since_s)
            if observed.whole or self._is_old(observed, since_s, now_s):
                stable.append(observed)
        return sorted(stable, key=lambda observed: (observed.mtime_ns, observed.name))

    def _is_old(self, observed: Observed, since_s: float, now_s: float) -> bool:
        return observed.size_bytes > 0 and now_s - since_s >= self._settle_s
