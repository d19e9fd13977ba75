"""The queue of pending jobs: one line for each demand, and in it one heap for each share.

A demand is what a job asks of an engine (codec and tags). Jobs of one demand can be taken by the
same engines, so only the head of each heap needs to be looked at: 100,000 jobs that nobody can
take are one head that nobody looks at. Rejected: one heap for all, scanned past the unplaceable.

Order: higher priority first, then (where the policy divides jobs into shares) the share whose turn it
is, then first come first served; a job that comes back keeps its age. Without shares all jobs are of
one. A line with several keeps a heap of their first jobs. Its keys may be out of date, but only too
small, as clocks run on and first jobs leave: so the least is looked at, and where it has grown, put
back with its true key.
"""

import heapq
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

from distconvd.dispatch.matching.fronts import Fronts
from distconvd.dispatch.matching.oldest_pending import OldestPending
from distconvd.dispatch.matching.requirements import Front, Requirements, index_tag, requirements_of
from distconvd.dispatch.matching.shares import Shares
from distconvd.model import Job
from distconvd.policy import Share


class QueueEntry(NamedTuple):
    """A job's place in its lane; entries compare by order, smallest first."""

    rank: int
    """Negative priority."""
    created_us: int
    """Microseconds of the job id: earlier first."""
    job_id: str
    """Unique in a lane, so that comparing there never gets further."""
    share_queue: "_ShareQueue"


def created_us(job_id: str) -> int:
    """Return the microseconds of a job's id; 0 for an id that is not of our making."""
    front = job_id.partition("_")[0]
    return int(front) if front.isdecimal() and len(front) <= 18 else 0


ONE_SHARE = Share("", 1.0)


class _ShareQueue:
    """The jobs of one demand and one share; all their entries share this object."""

    __slots__ = ("heap", "key", "requirements", "share")

    def __init__(self, requirements: Requirements, share: str) -> None:
        self.requirements = requirements
        self.share = share
        self.heap: list[QueueEntry] = []
        self.key: Front | None = None
        """Its valid key among the line's turns; none is needed while it is alone in its line."""

    def __lt__(self, other: "_ShareQueue") -> bool:
        """Of two entries of one job, in `OldestPending`, at most one is live: neither need come first."""
        return False


class _RequirementQueue(NamedTuple):
    """The jobs of one demand."""

    requirements: Requirements
    share_queues: dict[str, _ShareQueue]
    schedule: list[Front]
    """A heap of lower bounds of the lanes' heads; empty while there is one lane."""


class JobQueue:
    """Pending jobs that may be assigned now. Adding, removing and finding the first are O(log n).

    Attributes:
        share_of: which share a job counts for; set it before the first job comes.
    """

    def __init__(self) -> None:
        self.share_of: Callable[[Job], Share] | None = None
        self._shares = Shares()
        self.fronts = Fronts(self.front)
        self.oldest_pending = OldestPending(self._is_current)
        """The oldest jobs in line, for metrics."""
        self._requirement_queues: dict[Requirements, _RequirementQueue] = {}
        self._current: dict[str, QueueEntry] = {}
        self._by_codec: dict[str, dict[str | None, set[Requirements]]] = {}
        """Demands by codec and by one of their tags (None: they need no tag), so that an engine
        finds those that it can take without looking at the others."""
        self.dirty: dict[Requirements, None] = {}
        """Demands that got a job since somebody last cleared this, in that order."""

    def __len__(self) -> int:
        return len(self._current)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._current

    def add(self, job: Job) -> None:
        """Put a job in line; a job that is already there is moved."""
        self.discard(job.job_id)
        share = ONE_SHARE if self.share_of is None else self.share_of(job)
        requirement_queue = self._requirement_queue(requirements_of(job))
        share_queue = self._share_queue(requirement_queue, share.name)
        entry = QueueEntry(-job.priority, created_us(job.job_id), job.job_id, share_queue)
        self._current[job.job_id] = entry
        self.oldest_pending.add_entry(entry, len(self._current))
        self.dirty[requirement_queue.requirements] = None
        if len(share_queue.heap) > 2 * len(self._current) + 64:
            # Dead entries leave only from the top; this bounds those that never get there.
            share_queue.heap[:] = [e for e in share_queue.heap if self._is_current(e)]
            heapq.heapify(share_queue.heap)
        heapq.heappush(share_queue.heap, entry)
        if share_queue.heap[0] is entry:
            if len(requirement_queue.share_queues) > 1:
                self._update_key(requirement_queue, share_queue)
            self.fronts.update_front(requirement_queue.requirements)

    def discard(self, job_id: str) -> None:
        """Take a job out of line, if it is there."""
        entry = self._current.pop(job_id, None)
        if entry is not None:
            self._prune(entry.share_queue)
            self.oldest_pending.prune(entry.rank)

    def charge(self, job: Job) -> None:
        """Count a job that is being assigned for its share."""
        if self.share_of is not None:
            self._shares.charge(*self.share_of(job))

    def requirements_for(
        self, codecs: frozenset[str], tags: frozenset[str]
    ) -> Iterator[Requirements]:
        """Yield the demands with a job in line that an engine can take that lists these codecs."""
        for codec in codecs:
            by_tag = self._by_codec.get(codec)
            if by_tag is None:
                continue
            for tag in (None, *tags):
                for requirements in list(by_tag.get(tag, ())):
                    if requirements.requires <= tags:
                        yield requirements

    def front(self, requirements: Requirements) -> Front | None:
        """Return the first in line of one demand, as it is now."""
        requirement_queue = self._requirement_queues.get(requirements)
        if requirement_queue is None:
            return None
        if len(requirement_queue.share_queues) == 1:
            return self._front_of(next(iter(requirement_queue.share_queues.values())))
        while requirement_queue.schedule:
            least = requirement_queue.schedule[0]
            share_queue = requirement_queue.share_queues.get(least.share)
            if share_queue is None or share_queue.key != least:
                heapq.heappop(
                    requirement_queue.schedule
                )  # of a lane that is gone, or that a lesser key stands for
                continue
            now = self._front_of(share_queue)
            if now == least:
                return now
            share_queue.key = now
            heapq.heapreplace(requirement_queue.schedule, now)
        return None  # all lanes are taken out, by `in_order`

    def in_order(self, requirements: Requirements) -> Generator[QueueEntry]:
        """Yield the entries of one demand in order; each but the first costs O(log n).

        Shares take turns: past a job that is not taken, the next of its share comes after the
        first of the others, so that one whose jobs are held does not hide them. Close it (or run
        it out) before changing the queue: it puts back what it took out.
        """
        first = self.front(requirements)
        if first is None:
            return
        requirement_queue = self._requirement_queues[requirements]
        yield requirement_queue.share_queues[first.share].heap[0]
        if len(requirement_queue.share_queues) == 1:
            yield from self._rest_of(requirement_queue.share_queues[first.share])
        else:
            entries = self._by_schedule(requirements, requirement_queue)
            next(entries)  # the first, which has been yielded
            yield from entries

    def _by_schedule(
        self, requirements: Requirements, requirement_queue: _RequirementQueue
    ) -> Generator[QueueEntry]:
        """Yield the entries of a line of several shares; puts back what it took out."""
        rests: dict[str, Generator[QueueEntry]] = {}
        fresh: list[Front] = []
        """Heads taken out of the turns."""
        passed_over: list[tuple[int, int, Front, QueueEntry]] = []
        """Of the shares that have been looked at: rank, how often, what comes next of it."""
        try:
            while requirement_queue.schedule or passed_over:
                front = self.front(requirements) if requirement_queue.schedule else None
                if front is not None and (not passed_over or (front.rank, 0) <= passed_over[0][:2]):
                    fresh.append(heapq.heappop(requirement_queue.schedule))
                    share_queue = requirement_queue.share_queues[front.share]
                    share_queue.key = None
                    entry, passed = share_queue.heap[0], 0
                    rests[front.share] = self._rest_of(share_queue)
                elif passed_over:
                    _, passed, front, entry = heapq.heappop(passed_over)
                else:
                    break  # what was left of the turns was dead
                yield entry
                following = next(rests[front.share], None)
                if following is not None:
                    later = front._replace(created_us=following.created_us, job_id=following.job_id)
                    heapq.heappush(passed_over, (following.rank, passed + 1, later, following))
        finally:
            for rest in rests.values():
                rest.close()
            for front in fresh:
                requirement_queue.share_queues[front.share].key = front
                heapq.heappush(requirement_queue.schedule, front)

    def ahead_of(self, job_id: str) -> int:
        """Return how many jobs of the same demand and share come before this one: O(n), for `why`."""
        entry = self._current[job_id]
        return sum(self._is_current(e) and e < entry for e in entry.share_queue.heap)

    def rivals_of(self, job_id: str) -> list[str]:
        """Return the other shares whose jobs the same engines can take, for `why`."""
        share_queue = self._current[job_id].share_queue
        return sorted(
            share
            for share in self._requirement_queues[share_queue.requirements].share_queues
            if share != share_queue.share
        )

    def _front_of(self, share_queue: _ShareQueue) -> Front:
        first = share_queue.heap[0]
        clock = 0.0 if self.share_of is None else self._shares.clock(share_queue.share)
        return Front(first.rank, clock, first.created_us, first.job_id, share_queue.share)

    def _rest_of(self, share_queue: _ShareQueue) -> Generator[QueueEntry]:
        """Yield a lane's entries behind its first, in order; puts all back at its end."""
        heap = share_queue.heap
        taken = [heapq.heappop(heap)]
        try:
            while heap:
                entry = heapq.heappop(heap)
                if self._is_current(entry):
                    taken.append(entry)
                    yield entry
        finally:
            for entry in taken:
                heapq.heappush(heap, entry)

    def _is_current(self, entry: QueueEntry) -> bool:
        return self._current.get(entry.job_id) is entry

    def _requirement_queue(self, requirements: Requirements) -> _RequirementQueue:
        requirement_queue = self._requirement_queues.get(requirements)
        if requirement_queue is None:
            requirement_queue = self._requirement_queues[requirements] = _RequirementQueue(
                requirements, {}, []
            )
            self._by_codec.setdefault(requirements.codec, {}).setdefault(
                index_tag(requirements), set()
            ).add(requirements)
        return requirement_queue

    def _share_queue(self, requirement_queue: _RequirementQueue, share: str) -> _ShareQueue:
        share_queue = requirement_queue.share_queues.get(share)
        if share_queue is None:
            if len(requirement_queue.share_queues) == 1:
                self._update_key(
                    requirement_queue, next(iter(requirement_queue.share_queues.values()))
                )
            share_queue = requirement_queue.share_queues[share] = _ShareQueue(
                requirement_queue.requirements, share
            )
            self._shares.queue_added(share)
        return share_queue

    def _update_key(self, requirement_queue: _RequirementQueue, share_queue: _ShareQueue) -> None:
        """Enter a lane's head among the line's turns."""
        front = self._front_of(share_queue)
        if share_queue.key is not None and share_queue.key <= front:
            return  # the bound that stands holds still
        if len(requirement_queue.schedule) > 2 * len(requirement_queue.share_queues) + 64:
            requirement_queue.schedule[:] = [
                h
                for h in requirement_queue.schedule
                if h.share in requirement_queue.share_queues
                and requirement_queue.share_queues[h.share].key == h
            ]
            heapq.heapify(requirement_queue.schedule)
        share_queue.key = front
        heapq.heappush(requirement_queue.schedule, front)

    def _prune(self, share_queue: _ShareQueue) -> None:
        """Drop dead entries at the top, the lane with its last live one, the line with its lane."""
        heap = share_queue.heap
        while heap and not self._is_current(heap[0]):
            heapq.heappop(heap)
        if heap:
            return
        requirement_queue = self._requirement_queues[share_queue.requirements]
        del requirement_queue.share_queues[share_queue.share]
        self._shares.queue_removed(share_queue.share)
        if len(requirement_queue.share_queues) == 1:
            requirement_queue.schedule.clear()
            next(iter(requirement_queue.share_queues.values())).key = None
        elif not requirement_queue.share_queues:
            del self._requirement_queues[share_queue.requirements]
            self.fronts.forget(share_queue.requirements)
            self._forget(share_queue.requirements)

    def _forget(self, requirements: Requirements) -> None:
        by_tag = self._by_codec[requirements.codec]
        tag = index_tag(requirements)
        by_tag[tag].discard(requirements)
        if not by_tag[tag]:
            del by_tag[tag]
        if not by_tag:
            del self._by_codec[requirements.codec]


__all__ = [
    "ONE_SHARE",
    "Front",
    "JobQueue",
    "QueueEntry",
    "Requirements",
    "created_us",
    "requirements_of",
]
