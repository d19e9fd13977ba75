"""Queue the pending jobs: one queue for each requirement, one heap for each share in it.

A requirement is what a job needs of an engine (codec and tags). Jobs of one requirement can be
taken by the same engines, so only the front of each queue needs to be looked at: 100,000 jobs that
no engine can take are one front that nobody looks at. Rejected: one heap for all, scanned past the
unplaceable.

Order: higher priority first, then (where the policy divides jobs into shares) the share whose clock
is least, then first come, first served; a job that comes back keeps its age. Without shares all
jobs are in one.

A removed job's entry stays in its heap until it reaches the top or a sweep (see `lazy_heap`); the
test kit's `check_invariants` checks that what stays is never taken for a job that waits.
"""

from collections.abc import Callable, Generator

from distconvd.dispatch.matching.fronts import Fronts
from distconvd.dispatch.matching.oldest_pending import OldestPending
from distconvd.dispatch.matching.requirement_queue import QueueEntry, RequirementQueue
from distconvd.dispatch.matching.requirements import Front, Requirements, requirements_of
from distconvd.dispatch.matching.shares import Shares
from distconvd.model import Job
from distconvd.policy import Share


def created_us(job_id: str) -> int:
    """Return the microseconds of a job's id; 0 for an id that this daemon did not make."""
    digits = job_id.partition("_")[0]
    return int(digits) if digits.isdecimal() and len(digits) <= 18 else 0


ONE_SHARE = Share("", 1.0)


class JobQueue:
    """Pending jobs that may be assigned now. Adding, removing and finding the first are O(log n).

    Attributes:
        share_of: returns the share of a job; set it before the first job is added.
    """

    def __init__(self) -> None:
        self.share_of: Callable[[Job], Share] | None = None
        self.fronts = Fronts(self.front)
        self._current: dict[str, QueueEntry] = {}
        self.oldest_pending = OldestPending(self._current)
        """The oldest pending jobs, for metrics."""
        self.dirty: dict[Requirements, None] = {}
        """Requirements that got a job since this was last cleared, in that order."""
        self._shares = Shares()
        self._requirement_queues: dict[Requirements, RequirementQueue] = {}

    def __len__(self) -> int:
        return len(self._current)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._current

    def add(self, job: Job) -> None:
        """Put a job into the queue; a job that is already there is moved."""
        self.discard(job.job_id)
        share = ONE_SHARE if self.share_of is None else self.share_of(job)
        requirement_queue = self._requirement_queue(requirements_of(job))
        share_queue = requirement_queue.share_queue(share.name)
        entry = QueueEntry(-job.priority, created_us(job.job_id), job.job_id, share_queue)
        self._current[job.job_id] = entry
        self.oldest_pending.add_entry(entry)
        self.dirty[requirement_queue.requirements] = None
        if requirement_queue.push(entry):
            self.fronts.enter(requirement_queue.requirements)

    def discard(self, job_id: str) -> None:
        """Take a job out of the queue, if it is there."""
        entry = self._current.pop(job_id, None)
        if entry is None:
            return
        requirement_queue = entry.share_queue.requirement_queue
        if requirement_queue.prune(entry.share_queue):
            del self._requirement_queues[requirement_queue.requirements]
            self.fronts.remove(requirement_queue.requirements)
        self.oldest_pending.prune(entry.rank)

    def charge(self, job: Job) -> None:
        """Charge a job that is being assigned to its share."""
        if self.share_of is not None:
            self._shares.charge(*self.share_of(job))

    def front(self, requirements: Requirements) -> Front | None:
        """Return the front of one requirement queue, as it is now."""
        requirement_queue = self._requirement_queues.get(requirements)
        return None if requirement_queue is None else requirement_queue.front()

    def in_order(self, requirements: Requirements) -> Generator[QueueEntry]:
        """Yield the entries of one requirement in order; see `RequirementQueue.in_order`."""
        requirement_queue = self._requirement_queues.get(requirements)
        return (_ for _ in ()) if requirement_queue is None else requirement_queue.in_order()

    def ahead_of(self, job_id: str) -> int:
        """Return how many jobs of the same requirement and share come before this one: O(n)."""
        entry = self._current[job_id]
        return entry.share_queue.requirement_queue.ahead_of(entry)

    def rivals_of(self, job_id: str) -> list[str]:
        """Return the other shares whose jobs the same engines can take."""
        share_queue = self._current[job_id].share_queue
        shares = share_queue.requirement_queue.share_queues
        return sorted(share for share in shares if share != share_queue.share)

    def _requirement_queue(self, requirements: Requirements) -> RequirementQueue:
        requirement_queue = self._requirement_queues.get(requirements)
        if requirement_queue is None:
            requirement_queue = RequirementQueue(requirements, self._shares, self._current)
            self._requirement_queues[requirements] = requirement_queue
            self.fronts.add(requirements)
        return requirement_queue


__all__ = [
    "ONE_SHARE",
    "Front",
    "JobQueue",
    "QueueEntry",
    "Requirements",
    "created_us",
    "requirements_of",
]
