"""When is a file that somebody else writes complete? When it has stopped changing.

Pure: what was seen and when go in, names come out. What is compared is one look with another, by
the observer's own monotonic clock, never a file's time with our time: clocks that disagree over
NFS do no harm. Only size and modification time count; inode numbers are not stable on every SMB
mount.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Seen(NamedTuple):
    """One file at one look."""

    name: str
    size_bytes: int
    mtime_ns: int
    whole: bool = False
    """It need not settle: it came by rename, or is nothing that could grow into a drop."""

    def same_file(self, other: "Seen") -> bool:
        """Whether both looks saw the same content, as far as a look can tell."""
        return (self.size_bytes, self.mtime_ns) == (other.size_bytes, other.mtime_ns)


class Settler:
    """Remembers the last look, and only that: its memory is that of the files it was shown.

    Args:
        settle_s: how long a file must stay the same.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._since: dict[str, tuple[Seen, float]] = {}

    def observe(self, now_s: float, files: Iterable[Seen]) -> list[Seen]:
        """Take one look at everything there is; return what has settled, oldest file first.

        What is not shown any more is forgotten. An empty file never settles.
        """
        before, self._since = self._since, {}
        settled: list[Seen] = []
        for seen in files:
            same, since_s = before.get(seen.name, (seen, now_s))
            if not same.same_file(seen):
                since_s = now_s
            self._since[seen.name] = (seen, since_s)
            if seen.whole or self._is_old(seen, since_s, now_s):
                settled.append(seen)
        return sorted(settled, key=lambda seen: (seen.mtime_ns, seen.name))

    def _is_old(self, seen: Seen, since_s: float, now_s: float) -> bool:
        return seen.size_bytes > 0 and now_s - since_s >= self._settle_s
