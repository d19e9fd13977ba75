"""The heads of all lines, for engines that take any codec: found in order, without looking at each.

An engine that lists its codecs looks at these few lines. One that takes any codec would look at all,
and there may be as many as there are words; so the heads are kept in heaps, one for each tag that a
demand is filed under. Keys are lower bounds, as in a line's turns (see `queue`): the least is looked
at, and where its line's head has grown, put back with its true key.
"""

import heapq
from collections.abc import Callable, Collection, Generator

from distconvd.dispatch.matching.requirements import Demand, Head, filing_tag

Filed = tuple[Head, Demand]


class Heads:
    """See the module.

    Args:
        head_of: returns the present head of a line, None where there is no such line.
    """

    def __init__(self, head_of: Callable[[Demand], Head | None]) -> None:
        self._head_of = head_of
        self._heaps: dict[str | None, list[Filed]] = {}
        self._posted: dict[Demand, Head] = {}
        """The valid key of each line; others in the heaps are dead."""

    def post(self, demand: Demand) -> None:
        """Note that a line has a new head, unless a lower bound of it stands already."""
        head = self._head_of(demand)
        standing = self._posted.get(demand)
        if head is None or (standing is not None and standing <= head):
            return
        heap = self._heaps.setdefault(filing_tag(demand), [])
        if len(heap) > 2 * len(self._posted) + 64:
            heap[:] = [filed for filed in heap if self._is_valid(filed)]
            heapq.heapify(heap)
        self._posted[demand] = head
        heapq.heappush(heap, (head, demand))

    def forget(self, demand: Demand) -> None:
        """Note that a line is no more."""
        del self._posted[demand]

    def walk(self, tag_sets: Collection[frozenset[str]]) -> Generator[Filed]:
        """Yield the lines that an engine with any of these sets of tags can take, first head first.

        The queue may change meanwhile: a line that is yielded and stays is not yielded again. Close
        it (or run it out): it puts back what it took out.
        """
        if not tag_sets:
            return
        tags: set[str | None] = {None, *(tag for tags in tag_sets for tag in tags)}
        heaps = [self._heaps[tag] for tag in tags if tag in self._heaps]
        taken: list[Filed] = []
        try:
            while (filed := self._pop_least(heaps)) is not None:
                taken.append(filed)
                if any(filed[1].requires <= tags for tags in tag_sets):
                    yield filed
        finally:
            for head, demand in taken:
                if self._posted.get(demand) == head:
                    heapq.heappush(self._heaps[filing_tag(demand)], (head, demand))

    def _pop_least(self, heaps: list[list[Filed]]) -> Filed | None:
        """Take out the valid entry with the least true key."""
        while True:
            heap = min((h for h in heaps if h), key=lambda h: h[0], default=None)
            if heap is None:
                return None
            filed = heapq.heappop(heap)
            if not self._is_valid(filed):
                continue
            now = self._head_of(filed[1])
            if now == filed[0]:
                return filed
            if now is not None:
                self._posted[filed[1]] = now
                heapq.heappush(heap, (now, filed[1]))

    def _is_valid(self, filed: Filed) -> bool:
        return self._posted.get(filed[1]) == filed[0]
