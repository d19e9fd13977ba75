"""The queue of pending jobs, one heap for each demand.

A demand is what a job asks of an engine (codec and tags). Jobs of one demand can be taken by the
same engines, so only the head of each heap needs to be looked at: 100,000 jobs that nobody can
take are one head that nobody looks at. Rejected: one heap for all, scanned past the unplaceable.

Order: higher priority first, then first come first served; a job that comes back keeps its age.
"""

import heapq
from collections.abc import Generator, Iterable, Iterator
from typing import NamedTuple

from distconvd.model import Job, canonical_codec


class Demand(NamedTuple):
    """What a job needs of an engine."""

    codec: str
    requires: frozenset[str]


class QueueEntry(NamedTuple):
    """A job's place in line; entries compare by order, smallest first."""

    rank: int
    """Negative priority."""
    born_us: int
    """Microseconds of the job id: earlier first."""
    job_id: str
    """Unique, so that comparing never gets further."""
    demand: Demand


def demand_of(job: Job) -> Demand:
    """Return what the job needs of an engine."""
    return Demand(canonical_codec(job.target_codec), frozenset(job.requires))


def born_us(job_id: str) -> int:
    """Return the microseconds of a job's id; 0 for an id that is not of our making."""
    head = job_id.partition("_")[0]
    return int(head) if head.isdecimal() and len(head) <= 18 else 0


class _Line(NamedTuple):
    """The jobs of one demand; `demand` is the one object that all entries share."""

    demand: Demand
    heap: list[QueueEntry]


class JobQueue:
    """Pending jobs that may be assigned now. Adding and removing cost O(log n)."""

    def __init__(self) -> None:
        self._lines: dict[Demand, _Line] = {}
        self._live: dict[str, QueueEntry] = {}
        self._by_codec: dict[str, dict[str | None, set[Demand]]] = {}
        """Demands by codec and by one of their tags (None: they need no tag), so that an engine
        finds those that it can take without looking at the others."""
        self.woken: set[Demand] = set()
        """Demands that got a job since somebody last cleared this."""

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._live

    def add(self, job: Job) -> None:
        """Put a job in line; a job that is already there is moved."""
        self.discard(job.job_id)
        line = self._line(demand_of(job))
        entry = QueueEntry(-job.priority, born_us(job.job_id), job.job_id, line.demand)
        self._live[job.job_id] = entry
        self.woken.add(line.demand)
        if len(line.heap) > 2 * len(self._live) + 64:
            # Dead entries leave only from the top; this bounds those that never get there.
            line.heap[:] = [e for e in line.heap if self._is_live(e)]
            heapq.heapify(line.heap)
        heapq.heappush(line.heap, entry)

    def discard(self, job_id: str) -> None:
        """Take a job out of line, if it is there."""
        entry = self._live.pop(job_id, None)
        if entry is not None:
            self._shed(entry.demand)

    def demands_for(self, codecs: frozenset[str] | None, tags: frozenset[str]) -> Iterator[Demand]:
        """Yield the demands with a job in line that an engine can take that lists these."""
        wanted: Iterable[str] = self._by_codec if codecs is None else codecs
        for codec in list(wanted):
            by_tag = self._by_codec.get(codec)
            if by_tag is None:
                continue
            for tag in (None, *tags):
                for demand in list(by_tag.get(tag, ())):
                    if demand.requires <= tags:
                        yield demand

    def head(self, demand: Demand) -> QueueEntry | None:
        """Return the first in line of one demand."""
        line = self._lines.get(demand)
        return line.heap[0] if line else None

    def in_order(self, demand: Demand) -> Generator[QueueEntry]:
        """Yield the entries of one demand in order; each but the first costs O(log n).

        Close it (or run it out) before changing the queue: it puts back what it took out.
        """
        line = self._lines.get(demand)
        if line is None:
            return
        heap = line.heap
        taken = [heap[0]]
        yield heap[0]
        heapq.heappop(heap)
        try:
            while heap:
                entry = heapq.heappop(heap)
                if self._is_live(entry):
                    taken.append(entry)
                    yield entry
        finally:
            for entry in taken:
                heapq.heappush(heap, entry)

    def ahead_of(self, job_id: str) -> int:
        """Return how many jobs of the same demand come before this one: O(n), for `why`."""
        entry = self._live[job_id]
        return sum(self._is_live(e) and e < entry for e in self._lines[entry.demand].heap)

    def _is_live(self, entry: QueueEntry) -> bool:
        return self._live.get(entry.job_id) is entry

    def _line(self, demand: Demand) -> _Line:
        line = self._lines.get(demand)
        if line is None:
            line = self._lines[demand] = _Line(demand, [])
            self._by_codec.setdefault(demand.codec, {}).setdefault(_tag(demand), set()).add(demand)
        return line

    def _shed(self, demand: Demand) -> None:
        """Drop dead entries at the top, and the heap with its last live one."""
        heap = self._lines[demand].heap
        while heap and not self._is_live(heap[0]):
            heapq.heappop(heap)
        if not heap:
            del self._lines[demand]
            self._forget(demand)

    def _forget(self, demand: Demand) -> None:
        by_tag = self._by_codec[demand.codec]
        tag = _tag(demand)
        by_tag[tag].discard(demand)
        if not by_tag[tag]:
            del by_tag[tag]
        if not by_tag:
            del self._by_codec[demand.codec]


def _tag(demand: Demand) -> str | None:
    """Return the one of a demand's tags that it is filed under."""
    return min(demand.requires, default=None)
