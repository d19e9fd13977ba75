"""Yield the fronts of all requirement queues in order, for engines that take any codec.

An engine that lists its codecs looks at these few queues. One that takes any codec would have to
look at all of them, and there may be as many as there are codec names; so the fronts are kept in
heaps, one for each tag under which a requirement is indexed. Keys are lower bounds, as in a
schedule (see `queue`): the least key is checked, and put back with its present value if its front
has changed.
"""

import heapq
from collections.abc import Callable, Collection, Generator

from distconvd.dispatch.matching.requirements import Front, Requirements, index_tag

IndexedFront = tuple[Front, Requirements]


class Fronts:
    """See the module.

    Args:
        front_of: returns the present front of a requirement queue, None if there is no such queue.
    """

    def __init__(self, front_of: Callable[[Requirements], Front | None]) -> None:
        self._front_of = front_of
        self._heaps: dict[str | None, list[IndexedFront]] = {}
        self._keys: dict[Requirements, Front] = {}
        """The valid key of each requirement queue; any other key in the heaps is dead."""

    def update_front(self, requirements: Requirements) -> None:
        """Enter the new front of a queue, unless a lower bound of it is in the heap already."""
        front = self._front_of(requirements)
        present_key = self._keys.get(requirements)
        if front is None or (present_key is not None and present_key <= front):
            return
        heap = self._heaps.setdefault(index_tag(requirements), [])
        if len(heap) > 2 * len(self._keys) + 64:
            heap[:] = [indexed_front for indexed_front in heap if self._is_valid(indexed_front)]
            heapq.heapify(heap)
        self._keys[requirements] = front
        heapq.heappush(heap, (front, requirements))

    def forget(self, requirements: Requirements) -> None:
        """Forget an emptied queue."""
        del self._keys[requirements]

    def walk(self, tag_sets: Collection[frozenset[str]]) -> Generator[IndexedFront]:
        """Yield the queues that engines with any of these sets of tags can take, first front first.

        The queue may change meanwhile: a requirement queue that has been yielded is not yielded
        again. Close the generator (or exhaust it): it puts back what it took out.
        """
        if not tag_sets:
            return
        tags: set[str | None] = {None, *(tag for tags in tag_sets for tag in tags)}
        heaps = [self._heaps[tag] for tag in tags if tag in self._heaps]
        taken: list[IndexedFront] = []
        try:
            while (indexed_front := self._pop_least(heaps)) is not None:
                taken.append(indexed_front)
                if any(indexed_front[1].requires <= tags for tags in tag_sets):
                    yield indexed_front
        finally:
            for front, requirements in taken:
                if self._keys.get(requirements) == front:
                    heapq.heappush(self._heaps[index_tag(requirements)], (front, requirements))

    def _pop_least(self, heaps: list[list[IndexedFront]]) -> IndexedFront | None:
        """Remove and return the valid entry with the least present key."""
        while True:
            heap = min((h for h in heaps if h), key=lambda h: h[0], default=None)
            if heap is None:
                return None
            indexed_front = heapq.heappop(heap)
            if not self._is_valid(indexed_front):
                continue
            now = self._front_of(indexed_front[1])
            if now == indexed_front[0]:
                return indexed_front
            if now is not None:
                self._keys[indexed_front[1]] = now
                heapq.heappush(heap, (now, indexed_front[1]))

    def _is_valid(self, indexed_front: IndexedFront) -> bool:
        return self._keys.get(indexed_front[1]) == indexed_front[0]
