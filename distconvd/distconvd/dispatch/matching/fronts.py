"""Yield the fronts of requirement queues in order, for the engines that can take them.

An engine that lists its codecs looks at the few queues of these codecs. One that takes any codec
would have to look at all queues, and there may be as many as there are codec names; so these are in
schedules, one for each tag under which a requirement is indexed, and walked as far as needed.
"""

import heapq
from collections.abc import Callable, Collection, Generator, Iterator

from distconvd.dispatch.matching.requirements import Ability, Front, Requirements, index_tag
from distconvd.dispatch.matching.schedule import Schedule

IndexedFront = tuple[Front, Requirements]


class Fronts:
    """See the module.

    Args:
        front_of: returns the present front of a requirement queue, None if there is no such queue.
    """

    def __init__(self, front_of: Callable[[Requirements], Front | None]) -> None:
        self._front_of = front_of
        self._schedules: dict[str | None, Schedule[Requirements]] = {}
        self._by_codec: dict[str, dict[str | None, set[Requirements]]] = {}
        """Requirements by codec and by one of their tags (None: they need no tag), so that an
        engine finds those that it can take without looking at the others."""

    def add(self, requirements: Requirements) -> None:
        """Index a new queue; it gets its place when it has a front."""
        by_tag = self._by_codec.setdefault(requirements.codec, {})
        by_tag.setdefault(index_tag(requirements), set()).add(requirements)

    def enter(self, requirements: Requirements) -> None:
        """Give a queue its place: its front is new."""
        tag = index_tag(requirements)
        schedule = self._schedules.get(tag)
        if schedule is None:
            schedule = self._schedules[tag] = Schedule(self._front_of)
        schedule.enter(requirements)

    def remove(self, requirements: Requirements) -> None:
        """Remove a queue that is empty."""
        tag = index_tag(requirements)
        self._schedules[tag].remove(requirements)
        by_tag = self._by_codec[requirements.codec]
        by_tag[tag].discard(requirements)
        if not by_tag[tag]:
            del by_tag[tag]
        if not by_tag:
            del self._by_codec[requirements.codec]

    def in_order(self, abilities: Collection[Ability]) -> Generator[IndexedFront]:
        """Yield the queues that engines of these abilities can take, each once, first front first.

        The queue may change meanwhile; then a queue may come in the order in which it was before.
        Close the generator (or exhaust it): it puts back what it took out.
        """
        listed = {requirements for ability in abilities for requirements in self._listed(ability)}
        tag_sets = [tags for codecs, tags in abilities if not codecs]
        return self._merged(listed, tag_sets) if tag_sets else self._sorted(listed)

    def _merged(
        self, listed: set[Requirements], tag_sets: list[frozenset[str]]
    ) -> Generator[IndexedFront]:
        """Yield the listed queues, and all others that need no more than one of the sets of tags."""
        tags: set[str | None] = {None, *(tag for tags in tag_sets for tag in tags)}
        schedules = [self._schedules[tag] for tag in tags if tag in self._schedules]
        walked: list[tuple[Schedule[Requirements], Requirements]] = []
        """What was taken out of the schedules."""

        def walk(schedule: Schedule[Requirements]) -> Iterator[IndexedFront]:
            while (first := schedule.pop()) is not None:
                walked.append((schedule, first[1]))
                # A queue that is listed as well comes from there, so that it is yielded once.
                if first[1] not in listed and any(first[1].requires <= tags for tags in tag_sets):
                    yield first

        try:
            yield from heapq.merge(self._sorted(listed), *map(walk, schedules))
        finally:
            for schedule, requirements in walked:
                schedule.enter(requirements)

    def _listed(self, ability: Ability) -> Iterator[Requirements]:
        """Yield the requirements with pending jobs that an engine which lists its codecs can take."""
        for codec in ability.codecs or ():
            by_tag = self._by_codec.get(codec)
            if by_tag is None:
                continue
            for tag in (None, *ability.tags):
                for requirements in by_tag.get(tag, ()):
                    if requirements.requires <= ability.tags:
                        yield requirements

    def _sorted(self, listed: set[Requirements]) -> Generator[IndexedFront]:
        """Yield queues, first front first; a caller that wants the first few does not sort all."""
        heap = [(front, r) for r in listed if (front := self._front_of(r)) is not None]
        heapq.heapify(heap)
        while heap:
            yield heapq.heappop(heap)
