"""Whose turn it is, where a policy divides the queue into shares: start-time fair queuing.

Each share has a clock that runs on by the cost of every job of its that is assigned; the share whose
clock is the furthest behind comes next. A share of half the costs so gets twice the jobs, and none
starves: while it waits, its clock stands still and the others' run on. A share that had nothing in
line begins at the present of the others, so idleness saves up nothing. (The rule is that of P. Goyal,
H. Vin and H. Cheng, "Start-time Fair Queuing", 1996.)

Runtime only: a restart, or a queue that runs empty, begins the count anew, and a charge whose commit
failed stays, as it would be charged again a moment later. Clocks only ever run on; `queue` relies on
that.
"""

SHARES_MAX = 10_000
"""Clocks kept of shares that have nothing in line; beyond it the oldest is forgotten."""


class Shares:
    """The clocks of all shares."""

    def __init__(self) -> None:
        self._clocks: dict[str, float] = {}
        self._queue_counts: dict[str, int] = {}
        """How many lines of the queue hold jobs of a share."""
        self._present = 0.0

    def clock(self, share: str) -> float:
        """Return how far a share is; the least comes next."""
        return self._clocks.get(share, self._present)

    def queue_added(self, share: str) -> None:
        """Note that one more line holds jobs of this share."""
        queue_count = self._queue_counts.get(share, 0)
        self._queue_counts[share] = queue_count + 1
        if not queue_count:
            self._clocks[share] = max(self._clocks.pop(share, 0.0), self._present)

    def queue_removed(self, share: str) -> None:
        """Note that one line has run out of jobs of this share."""
        queue_count = self._queue_counts.pop(share) - 1
        if queue_count:
            self._queue_counts[share] = queue_count
        elif not self._queue_counts:
            self._clocks.clear()
            self._present = 0.0
        else:
            self._forget_some()

    def charge(self, share: str, cost: float) -> None:
        """Let a share's clock run on: a job of its has been assigned."""
        began = self.clock(share)
        if share not in self._queue_counts:
            began = max(began, self._present)
        self._present = max(self._present, began)
        if self._queue_counts:
            self._clocks[share] = began + cost

    def _forget_some(self) -> None:
        """Keep the clocks of absent shares bounded: first those that say nothing any more."""
        if len(self._clocks) <= len(self._queue_counts) + SHARES_MAX:
            return
        absent = [share for share in self._clocks if share not in self._queue_counts]
        stale = [share for share in absent if self._clocks[share] <= self._present]
        for share in stale or absent[: SHARES_MAX // 2]:
            del self._clocks[share]
