"""Find the oldest pending job of each priority, for metrics: one heap for each priority.

A queue's own heap shows only the first job of its highest priority, and there may be as many queues
as there are codec names; so entries are indexed once more, by age alone.
"""

from collections.abc import Mapping

from distconvd.dispatch.matching.lazy_heap import LazyHeap
from distconvd.dispatch.matching.requirement_queue import JOB_ID_AT, QueueEntry

PRUNED_MAX = 4
"""Invalid entries dropped in one step: more than one step adds, so that they do not pile up."""


class OldestPending:
    """See the module.

    Args:
        current: the entry of each job in the queue.
    """

    def __init__(self, current: Mapping[str, QueueEntry]) -> None:
        self._current = current
        self._heaps: dict[int, LazyHeap[QueueEntry]] = {}

    def add_entry(self, entry: QueueEntry) -> None:
        """Add a job that is in the queue now."""
        heap = self._heaps.get(entry.rank)
        if heap is None:
            heap = self._heaps[entry.rank] = LazyHeap(self._current, JOB_ID_AT)
        heap.push(entry)

    def prune(self, rank: int) -> None:
        """Drop a few invalid entries, since a job of this rank has left the queue."""
        self._heaps[rank].prune(PRUNED_MAX)

    def oldest(self) -> dict[int, str]:
        """Return the id of the oldest job by priority, for those priorities that have any."""
        firsts = ((rank, heap.first()) for rank, heap in self._heaps.items())
        return {-rank: first.job_id for rank, first in firsts if first is not None}
