"""Find the oldest pending job of each priority, for metrics: one heap for each priority.

A queue's own heap shows only the first job of its highest priority, and there may be as many queues
as there are codec names; so entries are indexed once more, by age alone. Dead entries leave from
the top, a few at a time, whenever a job leaves the queue; buried ones are swept when they are the
majority. So adding costs O(log n), and asking next to nothing.
"""

import heapq
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

PRUNED_MAX = 4
"""Dead entries dropped in one step: more than one step adds, so that they do not pile up."""


class Entry(Protocol):
    """A job's place in the queue; of two entries with the same rank, the older job's is less."""

    @property
    def rank(self) -> int:
        """Negative priority."""
        ...

    @property
    def job_id(self) -> str:
        """The job that it stands for."""
        ...

    def __lt__(self, other: Any, /) -> bool: ...


E = TypeVar("E", bound=Entry)


class OldestPending(Generic[E]):
    """See the module.

    Args:
        is_current: whether an entry still stands for a job in the queue.
    """

    def __init__(self, is_current: Callable[[E], bool]) -> None:
        self._is_current = is_current
        self._heaps: dict[int, list[E]] = {}

    def add_entry(self, entry: E, current_count: int) -> None:
        """Add a job; `current_count`: how many jobs are in the queue, this one included."""
        heap = self._heaps.get(entry.rank)
        if heap is None:
            heap = self._heaps[entry.rank] = []
        if len(heap) > 2 * current_count + 64:
            heap[:] = [e for e in heap if self._is_current(e)]
            heapq.heapify(heap)
        heapq.heappush(heap, entry)

    def prune(self, rank: int) -> None:
        """Drop a few dead entries from the top, since a job of this rank has left the queue."""
        heap, is_current = self._heaps[rank], self._is_current
        for _ in range(PRUNED_MAX):
            if not heap or is_current(heap[0]):
                return
            heapq.heappop(heap)

    def oldest(self) -> dict[int, str]:
        """Return the id of the oldest job by priority, for those priorities that have any."""
        found: dict[int, str] = {}
        for rank, heap in self._heaps.items():
            while heap and not self._is_current(heap[0]):
                heapq.heappop(heap)
            if heap:
                found[-rank] = heap[0].job_id
        return found
