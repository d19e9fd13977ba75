"""The heads of all lines, for engines that take any codec: found in order, without looking at each.

An engine that lists its codecs looks at these few lines. One that takes any codec would look at all,
and there may be as many as there are words; so the heads are kept in heaps, one for each tag that a
demand is filed under. Keys are lower bounds, as in a line's turns (see `queue`): the least is looked
at, and where its line's head has grown, put back with its true key.
"""

import heapq
from collections.abc import Callable, Collection, Generator

from distconvd.dispatch.matching.requirements import Front, Requirements, index_tag

IndexedFront = tuple[Front, Requirements]


class Fronts:
    """See the module.

    Args:
        head_of: returns the present head of a line, None where there is no such line.
    """

    def __init__(self, front_of: Callable[[Requirements], Front | None]) -> None:
        self._front_of = front_of
        self._heaps: dict[str | None, list[IndexedFront]] = {}
        self._keys: dict[Requirements, Front] = {}
        """The valid key of each line; others in the heaps are dead."""

    def update_front(self, requirements: Requirements) -> None:
        """Note that a line has a new head, unless a lower bound of it stands already."""
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
        """Note that a line is no more."""
        del self._keys[requirements]

    def walk(self, tag_sets: Collection[frozenset[str]]) -> Generator[IndexedFront]:
        """Yield the lines that an engine with any of these sets of tags can take, first head first.

        The queue may change meanwhile: a line that is yielded and stays is not yielded again. Close
        it (or run it out): it puts back what it took out.
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
        """Take out the valid entry with the least true key."""
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
