"""Decide which requirement queue is looked at next, while jobs are taken from the queues.

Two sources merge into one order: the fronts, each queue once, and a heap of those queues that come
again, because a job was taken from them or because their front has changed since.
"""

import heapq
from collections.abc import Callable, Iterator

from distconvd.dispatch.matching.fronts import IndexedFront
from distconvd.dispatch.matching.requirements import Front, Requirements


class Visits:
    """See the module.

    Args:
        fronts: the queues, first front first.
        front_of: returns the present front of a requirement queue, None if there is no such queue.
    """

    def __init__(
        self, fronts: Iterator[IndexedFront], front_of: Callable[[Requirements], Front | None]
    ) -> None:
        self._fronts = fronts
        self._front_of = front_of
        self._fresh = next(fronts, None)
        self._again: list[IndexedFront] = []

    def next(self) -> Requirements | None:
        """Return the queue whose front is first now; None if there is no other."""
        while (indexed_front := self._pop()) is not None:
            front, requirements = indexed_front
            present = self._front_of(requirements)
            if present is None:
                continue  # its last job has been taken meanwhile
            if present <= front:
                return requirements
            # Its share has been charged meanwhile: another queue may come first now.
            heapq.heappush(self._again, (present, requirements))
        return None

    def come_again(self, requirements: Requirements) -> None:
        """Have a queue come again, under its present front: a job was taken from it."""
        front = self._front_of(requirements)
        if front is not None:
            heapq.heappush(self._again, (front, requirements))

    def _pop(self) -> IndexedFront | None:
        fresh = self._fresh
        if fresh is not None and (not self._again or fresh < self._again[0]):
            self._fresh = next(self._fronts, None)
            return fresh
        return heapq.heappop(self._again) if self._again else None
