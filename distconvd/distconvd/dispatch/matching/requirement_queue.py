"""Queue the pending jobs of one requirement: one heap for each share.

Order: higher priority first, then the share whose clock is least, then first come, first served.
While there is one share, its first job is next. Several shares are in a schedule, under the fronts of
their queues: a front is only ever passed over by time, as clocks only advance and first jobs only
leave.
"""

import heapq
from collections.abc import Generator, Mapping
from typing import NamedTuple

from distconvd.dispatch.matching.lazy_heap import LazyHeap
from distconvd.dispatch.matching.requirements import Front, Requirements
from distconvd.dispatch.matching.schedule import Schedule
from distconvd.dispatch.matching.shares import Shares


class QueueEntry(NamedTuple):
    """A job's place in its share queue; entries compare by order, smallest first."""

    rank: int
    """Negative priority."""
    created_us: int
    """Microseconds of the job id: earlier first."""
    job_id: str
    """Unique in a share queue, so that a comparison there never gets further."""
    share_queue: "ShareQueue"


JOB_ID_AT = 2
"""Which field of an entry is the job's id, by which `LazyHeap` finds the valid one."""


class ShareQueue:
    """The jobs of one requirement and one share; all their entries refer to this object."""

    __slots__ = ("entries", "requirement_queue", "share")

    def __init__(
        self,
        requirement_queue: "RequirementQueue",
        share: str,
        current: Mapping[str, QueueEntry],
    ) -> None:
        self.requirement_queue = requirement_queue
        self.share = share
        self.entries = LazyHeap(current, JOB_ID_AT)

    def __lt__(self, other: "ShareQueue") -> bool:
        """Of two entries of one job, as in `OldestPending`, one is invalid: any order will do."""
        return False


class RequirementQueue:
    """The jobs of one requirement; see the module. It exists while it has jobs.

    Args:
        requirements: what its jobs need.
        shares: the clocks of all shares.
        current: the entry of each job in the whole queue.
    """

    __slots__ = ("_current", "_schedule", "_shares", "requirements", "share_queues")

    def __init__(
        self,
        requirements: Requirements,
        shares: Shares,
        current: Mapping[str, QueueEntry],
    ) -> None:
        self.requirements = requirements
        self.share_queues: dict[str, ShareQueue] = {}
        self._shares = shares
        self._current = current
        self._schedule: Schedule[ShareQueue] | None = None
        """The share queues in order; None while there is only one, which needs no order."""

    def share_queue(self, share: str) -> ShareQueue:
        """Return the queue of a share: a new, empty one if the share has no jobs here yet."""
        share_queue = self.share_queues.get(share)
        if share_queue is None:
            share_queue = ShareQueue(self, share, self._current)
            if len(self.share_queues) == 1:
                # The first share needed no place in the order while it was alone.
                self._schedule = Schedule(self._front_of)
                self._schedule.enter(next(iter(self.share_queues.values())))
            self.share_queues[share] = share_queue
            self._shares.queue_added(share)
        return share_queue

    def push(self, entry: QueueEntry) -> bool:
        """Add a job to its share's queue; return whether it is the first there, and so may be the
        new front."""
        share_queue = entry.share_queue
        share_queue.entries.push(entry)
        if share_queue.entries.first() is not entry:
            return False
        # Only a new first job can lower a front, and a bound that is too high would hide it.
        if self._schedule is not None:
            self._schedule.enter(share_queue)
        return True

    def prune(self, share_queue: ShareQueue) -> bool:
        """Drop a share's queue if a job has left it and none is there now; return whether this was
        the last job of the requirement."""
        if share_queue.entries.first() is not None:
            return False
        del self.share_queues[share_queue.share]
        self._shares.queue_removed(share_queue.share)
        if self._schedule is not None:
            self._schedule.remove(share_queue)
            if len(self.share_queues) == 1:
                self._schedule = None
        return not self.share_queues

    def front(self) -> Front | None:
        """Return the front as it is now; None while `in_order` has taken out all shares."""
        if self._schedule is None:
            return self._front_of(next(iter(self.share_queues.values())))
        first = self._schedule.first()
        return None if first is None else first[0]

    def in_order(self) -> Generator[QueueEntry]:
        """Yield the entries in order; each but the first costs O(log n).

        Shares take turns: after a job that is not taken, the next job of its share comes after the
        first jobs of the others, so that a share whose jobs the policy holds does not hide them.
        Close the generator or exhaust it before changing the queue: it puts back what it took out.
        """
        if self._schedule is None:
            return next(iter(self.share_queues.values())).entries.in_order()
        return self._by_schedule(self._schedule)

    def _by_schedule(self, schedule: Schedule[ShareQueue]) -> Generator[QueueEntry]:
        """Yield the entries of several shares; puts back what it took out.

        A share is taken out of the schedule when its first job has been passed over, and from then
        on comes back through `passed_over`, one entry at a time.
        """
        rests: dict[str, Generator[QueueEntry]] = {}
        taken: list[ShareQueue] = []
        """Shares taken out of the schedule."""
        passed_over: list[tuple[int, int, Front, QueueEntry]] = []
        """The next entry of each share yielded from: rank, how many were yielded, front, entry."""
        try:
            while True:
                first = schedule.first()
                # Priority goes first. Within a priority, a share of which nothing has been yielded
                # goes before those that had their turn, whatever their clocks say.
                if first is not None and (
                    not passed_over or (first[0].rank, 0) <= passed_over[0][:2]
                ):
                    (front, share_queue), passed = first, 0
                    rest = share_queue.entries.in_order()
                    yield next(rest)
                    # Only now take it out: most callers want no more than the first entry.
                    schedule.pop()
                    taken.append(share_queue)
                    rests[front.share] = rest
                elif passed_over:
                    # The lowest rank, then the share that had the fewest turns: they alternate.
                    _, passed, front, entry = heapq.heappop(passed_over)
                    yield entry
                else:
                    return
                following = next(rests[front.share], None)
                if following is not None:
                    # Queue the share again under its next job, which may be of a lower priority.
                    later = front._replace(created_us=following.created_us, job_id=following.job_id)
                    heapq.heappush(passed_over, (following.rank, passed + 1, later, following))
        finally:
            # Put back what was taken out: first the jobs, then their shares.
            for rest in rests.values():
                rest.close()
            for share_queue in taken:
                schedule.enter(share_queue)

    def ahead_of(self, entry: QueueEntry) -> int:
        """Return how many jobs of its share come before this one: O(n)."""
        return sum(other < entry for other in entry.share_queue.entries)

    def _front_of(self, share_queue: ShareQueue) -> Front | None:
        first = share_queue.entries.first()
        if first is None:
            return None
        clock = self._shares.clock(share_queue.share)
        return Front(first.rank, clock, first.created_us, first.job_id, share_queue.share)
