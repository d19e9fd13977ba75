"""Find runs of zero bytes, the mark of an unfinished download or a lost disk block.

Some decoders silently turn zeros into pictures, so the file itself is searched. A run is damage
only inside a packet of a codec that never writes one: uncompressed pictures, MPEG-2 stuffing and
free space in a container are legitimately full of zeros.
"""

from bisect import bisect_right
from pathlib import Path

RUN_BYTES = 512
"""Shorter runs are left to the decoders. Also the smallest block size of a disk."""
RUNS_MAX = 10_000
_CHUNK_BYTES = 1 << 20
_NEEDLE = bytes(RUN_BYTES)


class ZeroRuns:
    """The sorted places at which a file has long runs of zero bytes."""

    def __init__(self, runs: list[tuple[int, int]]) -> None:
        self._starts = [start for start, _ in runs]
        self._ends = [end for _, end in runs]

    def __bool__(self) -> bool:
        return bool(self._starts)

    def touch(self, position: int, size: int) -> bool:
        """Whether a run shares at least half of `RUN_BYTES` with the packet at `position`."""
        end = position + size
        at = bisect_right(self._starts, end) - 1
        while at >= 0 and self._ends[at] > position:
            if min(end, self._ends[at]) - max(position, self._starts[at]) >= RUN_BYTES // 2:
                return True
            at -= 1
        return False


class ZeroRunFinder:
    """Finds the runs in a stream of bytes."""

    def __init__(self) -> None:
        self._runs: list[tuple[int, int]] = []
        self._open_start: int | None = None
        self._position = 0

    @property
    def is_full(self) -> bool:
        """Whether so many runs were found that more would add nothing."""
        return len(self._runs) >= RUNS_MAX

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        if not self.is_full:
            self._open_start = _add_runs(chunk, self._position, self._open_start, self._runs)
        self._position += len(chunk)

    def close(self) -> ZeroRuns:
        """Return what was found."""
        if self._open_start is not None:
            self._runs.append((self._open_start, self._position))
        return ZeroRuns([run for run in self._runs if run[1] - run[0] >= RUN_BYTES])


def find_zero_runs(path: Path) -> ZeroRuns:
    """Read `path` once and return its runs of zero bytes; call it in a thread."""
    finder = ZeroRunFinder()
    with path.open("rb") as file:
        while not finder.is_full and (chunk := file.read(_CHUNK_BYTES)):
            finder.feed(chunk)
    return finder.close()


def _add_runs(
    chunk: bytes, offset: int, open_start: int | None, runs: list[tuple[int, int]]
) -> int | None:
    """Add the runs that end within `chunk`; returns the start of one that reaches its end."""
    at = 0
    if open_start is not None:
        at = _end_of_run(chunk, 0)
        if at == len(chunk):
            return open_start
        runs.append((open_start, offset + at))
    while (found := chunk.find(_NEEDLE, at)) >= 0:
        at = _end_of_run(chunk, found)
        if at == len(chunk):
            return offset + found
        runs.append((offset + found, offset + at))
    trailing = len(chunk) - len(chunk.rstrip(b"\0"))
    return offset + len(chunk) - trailing if trailing else None


def _end_of_run(chunk: bytes, start: int) -> int:
    """Return the first place at or after `start` whose byte is not zero."""
    return len(chunk) - len(chunk[start:].lstrip(b"\0"))
