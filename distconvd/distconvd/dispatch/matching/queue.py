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

from distconvd.dispatch.matching.fronts import Heads
from distconvd.dispatch.matching.oldest_pending import Ages
from distconvd.dispatch.matching.requirements import Demand, Head, demand_of, filing_tag
from distconvd.dispatch.matching.shares import Shares
from distconvd.model import Job
from distconvd.policy import Share


class QueueEntry(NamedTuple):
    """A job's place in its lane; entries compare by order, smallest first."""

    rank: int
    """Negative priority."""
    born_us: int
    """Microseconds of the job id: earlier first."""
    job_id: str
    """Unique in a lane, so that comparing there never gets further."""
    lane: "_Lane"


def born_us(job_id: str) -> int:
    """Return the microseconds of a job's id; 0 for an id that is not of our making."""
    head = job_id.partition("_")[0]
    return int(head) if head.isdecimal() and len(head) <= 18 else 0


ONE_SHARE = Share("", 1.0)


class _Lane:
    """The jobs of one demand and one share; all their entries share this object."""

    __slots__ = ("demand", "heap", "posted", "share")

    def __init__(self, demand: Demand, share: str) -> None:
        self.demand = demand
        self.share = share
        self.heap: list[QueueEntry] = []
        self.posted: Head | None = None
        """Its valid key among the line's turns; none is needed while it is alone in its line."""

    def __lt__(self, other: "_Lane") -> bool:
        """Of two entries of one job, in `Ages`, at most one is live: neither need come first."""
        return False


class _Line(NamedTuple):
    """The jobs of one demand."""

    demand: Demand
    lanes: dict[str, _Lane]
    turns: list[Head]
    """A heap of lower bounds of the lanes' heads; empty while there is one lane."""


class JobQueue:
    """Pending jobs that may be assigned now. Adding, removing and finding the first are O(log n).

    Attributes:
        share_of: which share a job counts for; set it before the first job comes.
    """

    def __init__(self) -> None:
        self.share_of: Callable[[Job], Share] | None = None
        self._shares = Shares()
        self.heads = Heads(self.head)
        self.ages = Ages(self._is_live)
        """The oldest jobs in line, for metrics."""
        self._lines: dict[Demand, _Line] = {}
        self._live: dict[str, QueueEntry] = {}
        self._by_codec: dict[str, dict[str | None, set[Demand]]] = {}
        """Demands by codec and by one of their tags (None: they need no tag), so that an engine
        finds those that it can take without looking at the others."""
        self.woken: dict[Demand, None] = {}
        """Demands that got a job since somebody last cleared this, in that order."""

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._live

    def add(self, job: Job) -> None:
        """Put a job in line; a job that is already there is moved."""
        self.discard(job.job_id)
        share = ONE_SHARE if self.share_of is None else self.share_of(job)
        line = self._line(demand_of(job))
        lane = self._lane(line, share.name)
        entry = QueueEntry(-job.priority, born_us(job.job_id), job.job_id, lane)
        self._live[job.job_id] = entry
        self.ages.file(entry, len(self._live))
        self.woken[line.demand] = None
        if len(lane.heap) > 2 * len(self._live) + 64:
            # Dead entries leave only from the top; this bounds those that never get there.
            lane.heap[:] = [e for e in lane.heap if self._is_live(e)]
            heapq.heapify(lane.heap)
        heapq.heappush(lane.heap, entry)
        if lane.heap[0] is entry:
            if len(line.lanes) > 1:
                self._post(line, lane)
            self.heads.post(line.demand)

    def discard(self, job_id: str) -> None:
        """Take a job out of line, if it is there."""
        entry = self._live.pop(job_id, None)
        if entry is not None:
            self._shed(entry.lane)
            self.ages.shed(entry.rank)

    def charge(self, job: Job) -> None:
        """Count a job that is being assigned for its share."""
        if self.share_of is not None:
            self._shares.charge(*self.share_of(job))

    def demands_for(self, codecs: frozenset[str], tags: frozenset[str]) -> Iterator[Demand]:
        """Yield the demands with a job in line that an engine can take that lists these codecs."""
        for codec in codecs:
            by_tag = self._by_codec.get(codec)
            if by_tag is None:
                continue
            for tag in (None, *tags):
                for demand in list(by_tag.get(tag, ())):
                    if demand.requires <= tags:
                        yield demand

    def head(self, demand: Demand) -> Head | None:
        """Return the first in line of one demand, as it is now."""
        line = self._lines.get(demand)
        if line is None:
            return None
        if len(line.lanes) == 1:
            return self._head_of(next(iter(line.lanes.values())))
        while line.turns:
            least = line.turns[0]
            lane = line.lanes.get(least.share)
            if lane is None or lane.posted != least:
                heapq.heappop(line.turns)  # of a lane that is gone, or that a lesser key stands for
                continue
            now = self._head_of(lane)
            if now == least:
                return now
            lane.posted = now
            heapq.heapreplace(line.turns, now)
        return None  # all lanes are taken out, by `in_order`

    def in_order(self, demand: Demand) -> Generator[QueueEntry]:
        """Yield the entries of one demand in order; each but the first costs O(log n).

        Shares take turns: past a job that is not taken, the next of its share comes after the
        first of the others, so that one whose jobs are held does not hide them. Close it (or run
        it out) before changing the queue: it puts back what it took out.
        """
        first = self.head(demand)
        if first is None:
            return
        line = self._lines[demand]
        yield line.lanes[first.share].heap[0]
        if len(line.lanes) == 1:
            yield from self._rest_of(line.lanes[first.share])
        else:
            entries = self._by_turns(demand, line)
            next(entries)  # the first, which has been yielded
            yield from entries

    def _by_turns(self, demand: Demand, line: _Line) -> Generator[QueueEntry]:
        """Yield the entries of a line of several shares; puts back what it took out."""
        rests: dict[str, Generator[QueueEntry]] = {}
        fresh: list[Head] = []
        """Heads taken out of the turns."""
        seen: list[tuple[int, int, Head, QueueEntry]] = []
        """Of the shares that have been looked at: rank, how often, what comes next of it."""
        try:
            while line.turns or seen:
                head = self.head(demand) if line.turns else None
                if head is not None and (not seen or (head.rank, 0) <= seen[0][:2]):
                    fresh.append(heapq.heappop(line.turns))
                    lane = line.lanes[head.share]
                    lane.posted = None
                    entry, passed = lane.heap[0], 0
                    rests[head.share] = self._rest_of(lane)
                elif seen:
                    _, passed, head, entry = heapq.heappop(seen)
                else:
                    break  # what was left of the turns was dead
                yield entry
                following = next(rests[head.share], None)
                if following is not None:
                    later = head._replace(born_us=following.born_us, job_id=following.job_id)
                    heapq.heappush(seen, (following.rank, passed + 1, later, following))
        finally:
            for rest in rests.values():
                rest.close()
            for head in fresh:
                line.lanes[head.share].posted = head
                heapq.heappush(line.turns, head)

    def ahead_of(self, job_id: str) -> int:
        """Return how many jobs of the same demand and share come before this one: O(n), for `why`."""
        entry = self._live[job_id]
        return sum(self._is_live(e) and e < entry for e in entry.lane.heap)

    def rivals_of(self, job_id: str) -> list[str]:
        """Return the other shares whose jobs the same engines can take, for `why`."""
        lane = self._live[job_id].lane
        return sorted(share for share in self._lines[lane.demand].lanes if share != lane.share)

    def _head_of(self, lane: _Lane) -> Head:
        first = lane.heap[0]
        clock = 0.0 if self.share_of is None else self._shares.clock(lane.share)
        return Head(first.rank, clock, first.born_us, first.job_id, lane.share)

    def _rest_of(self, lane: _Lane) -> Generator[QueueEntry]:
        """Yield a lane's entries behind its first, in order; puts all back at its end."""
        heap = lane.heap
        taken = [heapq.heappop(heap)]
        try:
            while heap:
                entry = heapq.heappop(heap)
                if self._is_live(entry):
                    taken.append(entry)
                    yield entry
        finally:
            for entry in taken:
                heapq.heappush(heap, entry)

    def _is_live(self, entry: QueueEntry) -> bool:
        return self._live.get(entry.job_id) is entry

    def _line(self, demand: Demand) -> _Line:
        line = self._lines.get(demand)
        if line is None:
            line = self._lines[demand] = _Line(demand, {}, [])
            self._by_codec.setdefault(demand.codec, {}).setdefault(filing_tag(demand), set()).add(
                demand
            )
        return line

    def _lane(self, line: _Line, share: str) -> _Lane:
        lane = line.lanes.get(share)
        if lane is None:
            if len(line.lanes) == 1:
                self._post(line, next(iter(line.lanes.values())))
            lane = line.lanes[share] = _Lane(line.demand, share)
            self._shares.came(share)
        return lane

    def _post(self, line: _Line, lane: _Lane) -> None:
        """Enter a lane's head among the line's turns."""
        head = self._head_of(lane)
        if lane.posted is not None and lane.posted <= head:
            return  # the bound that stands holds still
        if len(line.turns) > 2 * len(line.lanes) + 64:
            line.turns[:] = [
                h for h in line.turns if h.share in line.lanes and line.lanes[h.share].posted == h
            ]
            heapq.heapify(line.turns)
        lane.posted = head
        heapq.heappush(line.turns, head)

    def _shed(self, lane: _Lane) -> None:
        """Drop dead entries at the top, the lane with its last live one, the line with its lane."""
        heap = lane.heap
        while heap and not self._is_live(heap[0]):
            heapq.heappop(heap)
        if heap:
            return
        line = self._lines[lane.demand]
        del line.lanes[lane.share]
        self._shares.left(lane.share)
        if len(line.lanes) == 1:
            line.turns.clear()
            next(iter(line.lanes.values())).posted = None
        elif not line.lanes:
            del self._lines[lane.demand]
            self.heads.forget(lane.demand)
            self._forget(lane.demand)

    def _forget(self, demand: Demand) -> None:
        by_tag = self._by_codec[demand.codec]
        tag = filing_tag(demand)
        by_tag[tag].discard(demand)
        if not by_tag[tag]:
            del by_tag[tag]
        if not by_tag:
            del self._by_codec[demand.codec]


__all__ = ["ONE_SHARE", "Demand", "Head", "JobQueue", "QueueEntry", "born_us", "demand_of"]
