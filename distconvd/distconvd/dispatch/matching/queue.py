"""Queue the pending jobs: one queue for each requirement, one heap for each share in it.

A requirement is what a job needs of an engine (codec and tags). Jobs of one requirement can be
taken by the same engines, so only the front of each heap needs to be looked at: 100,000 jobs that
no engine can take are one front that nobody looks at. Rejected: one heap for all, scanned past the
unplaceable.

Order: higher priority first, then (where the policy divides jobs into shares) the share whose clock
is least, then first come, first served; a job that comes back keeps its age. Without shares all
jobs are in one. A requirement queue with several shares keeps a schedule: a heap of the fronts of
its share queues. Its keys are lower bounds, because clocks only advance and first jobs only leave:
so the least key is checked, and put back with its present value if its front has changed.

A removed job's entry stays in its heap, dead, until it reaches the top or a sweep.
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
    """A job's place in its share queue; entries compare by order, smallest first."""

    rank: int
    """Negative priority."""
    created_us: int
    """Microseconds of the job id: earlier first."""
    job_id: str
    """Unique in a share queue, so that a comparison there never gets further."""
    share_queue: "_ShareQueue"


def created_us(job_id: str) -> int:
    """Return the microseconds of a job's id; 0 for an id that this daemon did not make."""
    digits = job_id.partition("_")[0]
    return int(digits) if digits.isdecimal() and len(digits) <= 18 else 0


ONE_SHARE = Share("", 1.0)


class _ShareQueue:
    """The jobs of one requirement and one share; all their entries refer to this object."""

    __slots__ = ("heap", "key", "requirements", "share")

    def __init__(self, requirements: Requirements, share: str) -> None:
        self.requirements = requirements
        self.share = share
        self.heap: list[QueueEntry] = []
        self.key: Front | None = None
        """Its valid key in the schedule; None while it is the only share queue and needs no key."""

    def __lt__(self, other: "_ShareQueue") -> bool:
        """Of two entries of one job, in `OldestPending`, one is dead: any order will do."""
        return False


class _RequirementQueue(NamedTuple):
    """The jobs of one requirement."""

    requirements: Requirements
    share_queues: dict[str, _ShareQueue]
    schedule: list[Front]
    """A heap of lower bounds of the share queues' fronts; empty while there is one share queue."""


class JobQueue:
    """Pending jobs that may be assigned now. Adding, removing and finding the first are O(log n).

    Attributes:
        share_of: returns the share of a job; set it before the first job is added.
    """

    def __init__(self) -> None:
        self.share_of: Callable[[Job], Share] | None = None
        self._shares = Shares()
        self.fronts = Fronts(self.front)
        self.oldest_pending = OldestPending(self._is_current)
        """The oldest pending jobs, for metrics."""
        self._requirement_queues: dict[Requirements, _RequirementQueue] = {}
        self._current: dict[str, QueueEntry] = {}
        self._by_codec: dict[str, dict[str | None, set[Requirements]]] = {}
        """Requirements by codec and by one of their tags (None: they need no tag), so that an
        engine finds those that it can take without looking at the others."""
        self.dirty: dict[Requirements, None] = {}
        """Requirements that got a job since this was last cleared, in that order."""

    def __len__(self) -> int:
        return len(self._current)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._current

    def add(self, job: Job) -> None:
        """Put a job into the queue; a job that is already there is moved."""
        self.discard(job.job_id)
        share = ONE_SHARE if self.share_of is None else self.share_of(job)
        requirement_queue = self._requirement_queue(requirements_of(job))
        share_queue = self._share_queue(requirement_queue, share.name)
        entry = QueueEntry(-job.priority, created_us(job.job_id), job.job_id, share_queue)
        self._current[job.job_id] = entry
        self.oldest_pending.add_entry(entry, len(self._current))
        self.dirty[requirement_queue.requirements] = None
        if len(share_queue.heap) > 2 * len(self._current) + 64:
            # Dead entries leave only from the top: sweep those that never get there.
            share_queue.heap[:] = [e for e in share_queue.heap if self._is_current(e)]
            heapq.heapify(share_queue.heap)
        heapq.heappush(share_queue.heap, entry)
        # Only a new first job can lower a front, and a key that is too high would hide it.
        if share_queue.heap[0] is entry:
            if len(requirement_queue.share_queues) > 1:
                self._update_key(requirement_queue, share_queue)
            self.fronts.update_front(requirement_queue.requirements)

    def discard(self, job_id: str) -> None:
        """Take a job out of the queue, if it is there."""
        entry = self._current.pop(job_id, None)
        if entry is not None:
            self._prune(entry.share_queue)
            self.oldest_pending.prune(entry.rank)

    def charge(self, job: Job) -> None:
        """Charge a job that is being assigned to its share."""
        if self.share_of is not None:
            self._shares.charge(*self.share_of(job))

    def requirements_for(
        self, codecs: frozenset[str], tags: frozenset[str]
    ) -> Iterator[Requirements]:
        """Yield the requirements with pending jobs that an engine with these codecs can take."""
        for codec in codecs:
            by_tag = self._by_codec.get(codec)
            if by_tag is None:
                continue
            for tag in (None, *tags):
                for requirements in list(by_tag.get(tag, ())):
                    if requirements.requires <= tags:
                        yield requirements

    def front(self, requirements: Requirements) -> Front | None:
        """Return the front of one requirement queue, as it is now."""
        requirement_queue = self._requirement_queues.get(requirements)
        if requirement_queue is None:
            return None
        share_queues, schedule = requirement_queue.share_queues, requirement_queue.schedule
        if len(share_queues) == 1:
            return self._front_of(next(iter(share_queues.values())))
        while schedule:
            least = schedule[0]
            share_queue = share_queues.get(least.share)
            if share_queue is None or share_queue.key != least:
                # A dead key: its share queue is gone, or has a lower key as well.
                heapq.heappop(schedule)
                continue
            now = self._front_of(share_queue)
            if now == least:
                # Every other key is a lower bound and not below this one, so this front is first.
                return now
            # The share was charged or its first job left: the share may not be first any more.
            share_queue.key = now
            heapq.heapreplace(schedule, now)
        return None  # `in_order` has taken out all share queues

    def in_order(self, requirements: Requirements) -> Generator[QueueEntry]:
        """Yield the entries of one requirement in order; each but the first costs O(log n).

        Shares take turns: after a job that is not taken, the next job of its share comes after the
        first jobs of the others, so that a share whose jobs the policy holds does not hide them.
        Close the generator or exhaust it before changing the queue: it puts back what it took out.
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
            next(entries)  # the first entry, which has been yielded already
            yield from entries

    def _by_schedule(
        self, requirements: Requirements, requirement_queue: _RequirementQueue
    ) -> Generator[QueueEntry]:
        """Yield the entries of a queue with several shares; puts back what it took out.

        A share is taken out of the schedule when its first job is yielded, and from then on comes
        back through `passed_over`, one entry at a time.
        """
        rests: dict[str, Generator[QueueEntry]] = {}
        fresh: list[Front] = []
        """Fronts taken out of the schedule."""
        passed_over: list[tuple[int, int, Front, QueueEntry]] = []
        """The next entry of each share yielded from: rank, how many were yielded, front, entry."""
        try:
            while requirement_queue.schedule or passed_over:
                front = self.front(requirements) if requirement_queue.schedule else None
                # Priority goes first. Within a priority, a share of which nothing has been yielded
                # goes before those that had their turn, whatever their clocks say.
                if front is not None and (not passed_over or (front.rank, 0) <= passed_over[0][:2]):
                    # Take the share out of the schedule, so that the next front is another share's.
                    fresh.append(heapq.heappop(requirement_queue.schedule))
                    share_queue = requirement_queue.share_queues[front.share]
                    share_queue.key = None
                    entry, passed = share_queue.heap[0], 0
                    rests[front.share] = self._rest_of(share_queue)
                elif passed_over:
                    # The lowest rank, then the share that had the fewest turns: they alternate.
                    _, passed, front, entry = heapq.heappop(passed_over)
                else:
                    break  # the rest of the schedule was dead
                yield entry
                following = next(rests[front.share], None)
                if following is not None:
                    # Queue the share again under its next job, which may be of a lower priority.
                    later = front._replace(created_us=following.created_us, job_id=following.job_id)
                    heapq.heappush(passed_over, (following.rank, passed + 1, later, following))
        finally:
            # Put back what was taken out: first the jobs, then the keys of their shares.
            for rest in rests.values():
                rest.close()
            for front in fresh:
                requirement_queue.share_queues[front.share].key = front
                heapq.heappush(requirement_queue.schedule, front)

    def ahead_of(self, job_id: str) -> int:
        """Return how many jobs of the same requirement and share come before this one: O(n)."""
        entry = self._current[job_id]
        return sum(self._is_current(e) and e < entry for e in entry.share_queue.heap)

    def rivals_of(self, job_id: str) -> list[str]:
        """Return the other shares whose jobs the same engines can take."""
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
        """Yield a share queue's entries after its first, in order; puts all of them back."""
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
                # The first share had no key while it was alone; from now on it needs one.
                self._update_key(
                    requirement_queue, next(iter(requirement_queue.share_queues.values()))
                )
            share_queue = requirement_queue.share_queues[share] = _ShareQueue(
                requirement_queue.requirements, share
            )
            self._shares.queue_added(share)
        return share_queue

    def _update_key(self, requirement_queue: _RequirementQueue, share_queue: _ShareQueue) -> None:
        """Enter a share queue's front into the schedule."""
        front = self._front_of(share_queue)
        if share_queue.key is not None and share_queue.key <= front:
            return  # the present key is still a lower bound
        if len(requirement_queue.schedule) > 2 * len(requirement_queue.share_queues) + 64:
            requirement_queue.schedule[:] = [
                key
                for key in requirement_queue.schedule
                if key.share in requirement_queue.share_queues
                and requirement_queue.share_queues[key.share].key == key
            ]
            heapq.heapify(requirement_queue.schedule)
        share_queue.key = front
        heapq.heappush(requirement_queue.schedule, front)

    def _prune(self, share_queue: _ShareQueue) -> None:
        """Drop the dead entries at the top, then the queues that are empty without them."""
        heap = share_queue.heap
        while heap and not self._is_current(heap[0]):
            heapq.heappop(heap)
        if heap:
            return
        requirement_queue = self._requirement_queues[share_queue.requirements]
        del requirement_queue.share_queues[share_queue.share]
        self._shares.queue_removed(share_queue.share)
        if len(requirement_queue.share_queues) == 1:
            # The only share queue left is always next: it needs no schedule.
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
