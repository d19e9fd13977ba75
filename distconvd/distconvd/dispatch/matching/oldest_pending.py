"""Which job of each priority has been in line longest, for metrics: one heap for each priority.

A line's own heap shows the first of its highest priority only, and there may be as many lines as there
are words for codecs; so entries are filed once more, by age alone. Dead ones leave from the top, a few
at a time, whenever a job leaves the line; those that are buried are swept when they are the majority.
So filing costs O(log n), and asking next to nothing.
"""

import heapq
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

PRUNED_MAX = 4
"""Dead entries dropped at once: more than come, so that they do not gather."""


class Entry(Protocol):
    """A job's place in line; of two with one rank, the older job's is less."""

    @property
    def rank(self) -> int:
        """Negative priority."""
        ...

    @property
    def job_id(self) -> str:
        """Whose it is."""
        ...

    def __lt__(self, other: Any, /) -> bool: ...


E = TypeVar("E", bound=Entry)


class OldestPending(Generic[E]):
    """See the module.

    Args:
        is_live: whether an entry still stands for a job in line.
    """

    def __init__(self, is_current: Callable[[E], bool]) -> None:
        self._is_current = is_current
        self._heaps: dict[int, list[E]] = {}

    def add_entry(self, entry: E, current_count: int) -> None:
        """Note a job that gets in line; `current_count`: how many jobs are in it, this one included."""
        heap = self._heaps.get(entry.rank)
        if heap is None:
            heap = self._heaps[entry.rank] = []
        if len(heap) > 2 * current_count + 64:
            heap[:] = [e for e in heap if self._is_current(e)]
            heapq.heapify(heap)
        heapq.heappush(heap, entry)

    def prune(self, rank: int) -> None:
        """Drop a few dead entries from the top, as a job of this rank has left the line."""
        heap, is_current = self._heaps[rank], self._is_current
        for _ in range(PRUNED_MAX):
            if not heap or is_current(heap[0]):
                return
            heapq.heappop(heap)

    def oldest(self) -> dict[int, str]:
        """Return the id of the oldest job in line, by priority; without those that have none."""
        found: dict[int, str] = {}
        for rank, heap in self._heaps.items():
            while heap and not self._is_current(heap[0]):
                heapq.heappop(heap)
            if heap:
                found[-rank] = heap[0].job_id
        return found
