"""Find the queue whose front is first, among queues whose fronts change.

Each queue has one valid key in a heap, a lower bound of its front. A front rises by itself, when its
job leaves or its share is charged; nobody has to say so. Only the least key is checked, and put back
with the queue's present front if that has risen. Every other key is a lower bound and not below the
checked one, so that front is first. A front falls only when a new job becomes the first of its queue;
then the queue is entered again.
"""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from distconvd.dispatch.matching.lazy_heap import LazyHeap
from distconvd.dispatch.matching.requirements import Front


class Queue(Protocol):
    """What names a queue; its order decides only between equal fronts."""

    def __lt__(self, other: Any, /) -> bool: ...


Q = TypeVar("Q", bound=Queue)


class Schedule(Generic[Q]):
    """See the module.

    Args:
        front_of: returns the present front of a queue, None if there is no such queue.
    """

    __slots__ = ("_front_of", "_heap", "_keys")

    def __init__(self, front_of: Callable[[Q], Front | None]) -> None:
        self._front_of = front_of
        self._keys: dict[Q, tuple[Front, Q]] = {}
        self._heap = LazyHeap(self._keys, name_at=1)

    def enter(self, queue: Q) -> None:
        """Enter a queue under its front, unless a lower bound of it is there already."""
        front = self._front_of(queue)
        present = self._keys.get(queue)
        if front is None or (present is not None and present[0] <= front):
            return
        key = self._keys[queue] = (front, queue)
        self._heap.push(key)

    def remove(self, queue: Q) -> None:
        """Remove a queue, if it is there."""
        self._keys.pop(queue, None)

    def first(self) -> tuple[Front, Q] | None:
        """Return the queue whose front is first, with that front."""
        while (key := self._heap.first()) is not None:
            bound, queue = key
            front = self._front_of(queue)
            if front == bound:
                return key
            if front is None:
                self.remove(queue)
                continue
            # The share was charged or its first job left: the queue may not be first any more.
            key = self._keys[queue] = (front, queue)
            self._heap.replace_first(key)
        return None

    def pop(self) -> tuple[Front, Q] | None:
        """Remove and return the queue whose front is first, with that front."""
        first = self.first()
        if first is not None:
            self._heap.pop()
            self.remove(first[1])
        return first
