"""Keep entries in order, and drop those that are no longer valid when that is cheap.

Taking an entry out of the middle of a heap costs O(n). So an entry leaves by becoming invalid: its
owner keeps the valid entry of each name, and the heap drops any other when it reaches the top, or in
a sweep once invalid entries are the majority. So adding costs O(log n), and the least valid entry
next to nothing. Each entry is added and dropped once, so sweeps cost O(1) an entry.
"""

import heapq
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Generic, TypeVar

SWEEP_ABOVE = 64
"""Entries up to which a sweep is not worth its cost."""

E = TypeVar("E", bound=tuple[Any, ...])


class LazyHeap(Generic[E]):
    """See the module.

    Args:
        valid: the valid entry of each name; what its owner takes out of it leaves the heap.
        name_at: which field of an entry is its name.
    """

    __slots__ = ("_entries", "_name_at", "_valid")

    def __init__(self, valid: Mapping[Any, E], name_at: int) -> None:
        self._valid = valid
        self._name_at = name_at
        self._entries: list[E] = []

    def __len__(self) -> int:
        """Return how many entries there are, invalid ones included."""
        return len(self._entries)

    def __iter__(self) -> Iterator[E]:
        """Yield the valid entries in any order."""
        valid, name_at = self._valid, self._name_at
        return (entry for entry in self._entries if valid.get(entry[name_at]) is entry)

    def push(self, entry: E) -> None:
        """Add an entry; its owner has made it the valid one of its name."""
        if len(self._entries) > 2 * len(self._valid) + SWEEP_ABOVE:
            # Sweep those that never reach the top.
            self._entries = list(self)
            heapq.heapify(self._entries)
        heapq.heappush(self._entries, entry)

    def first(self) -> E | None:
        """Return the least valid entry, or None; what is invalid above it is dropped."""
        entries = self._entries
        while entries:
            # The check stands here once more, since a call would double the cost of most decisions.
            first = entries[0]
            if self._valid.get(first[self._name_at]) is first:
                return first
            heapq.heappop(entries)
        return None

    def pop(self) -> E | None:
        """Remove and return the least valid entry, or None."""
        first = self.first()
        if first is not None:
            heapq.heappop(self._entries)
        return first

    def replace_first(self, entry: E) -> None:
        """Put an entry in the place of the first one."""
        heapq.heapreplace(self._entries, entry)

    def prune(self, count_max: int) -> None:
        """Drop at most `count_max` invalid entries from the top."""
        entries = self._entries
        for _ in range(count_max):
            if not entries or self._valid.get(entries[0][self._name_at]) is entries[0]:
                return
            heapq.heappop(entries)

    def in_order(self) -> Generator[E]:
        """Yield the valid entries in order; each but the first costs O(log n).

        Close the generator or exhaust it before changing the heap: it puts back what it took out.
        """
        first = self.first()
        if first is None:
            return
        # Most callers want no more than the first, so nothing is taken out before it.
        yield first
        taken = [heapq.heappop(self._entries)]
        try:
            while (entry := self.pop()) is not None:
                taken.append(entry)
                yield entry
        finally:
            for entry in taken:
                heapq.heappush(self._entries, entry)
