"""Decide which share is next, where a policy divides the queue: start-time fair queuing.

Each share has a clock, which every assigned job of the share advances by its cost; the share whose
clock is furthest behind comes next. A share with half the cost therefore gets twice the jobs, and
none starves: while it waits, its clock stands still and the others advance. A share that had no
pending jobs starts at the present of the others, so idleness saves up nothing. (The rule is that of
P. Goyal, H. Vin and H. Cheng, "Start-time Fair Queuing", 1996.)

Runtime only: a restart or an emptied queue resets the clocks, and a charge whose commit failed
stays, as the job would be charged again a moment later. Clocks never go back; `queue` relies on
that.
"""

SHARES_MAX = 10_000
"""Clocks kept of shares without pending jobs; beyond this the oldest is forgotten."""


class Shares:
    """The clocks of all shares."""

    def __init__(self) -> None:
        self._clocks: dict[str, float] = {}
        self._queue_counts: dict[str, int] = {}
        """How many requirement queues contain jobs of a share."""
        self._present = 0.0

    def clock(self, share: str) -> float:
        """Return the clock of a share; the share with the least one is next."""
        return self._clocks.get(share, self._present)

    def queue_added(self, share: str) -> None:
        """Count one more requirement queue that contains jobs of this share."""
        queue_count = self._queue_counts.get(share, 0)
        self._queue_counts[share] = queue_count + 1
        if not queue_count:
            self._clocks[share] = max(self._clocks.pop(share, 0.0), self._present)

    def queue_removed(self, share: str) -> None:
        """Count one requirement queue less that contains jobs of this share."""
        queue_count = self._queue_counts.pop(share) - 1
        if queue_count:
            self._queue_counts[share] = queue_count
        elif not self._queue_counts:
            self._clocks.clear()
            self._present = 0.0
        else:
            self._forget_some()

    def charge(self, share: str, cost: float) -> None:
        """Advance a share's clock: one of its jobs has been assigned."""
        began = self.clock(share)
        if share not in self._queue_counts:
            began = max(began, self._present)
        self._present = max(self._present, began)
        if self._queue_counts:
            self._clocks[share] = began + cost

    def _forget_some(self) -> None:
        """Bound the clocks of absent shares; those that are not ahead of the present go first."""
        if len(self._clocks) <= len(self._queue_counts) + SHARES_MAX:
            return
        absent = [share for share in self._clocks if share not in self._queue_counts]
        stale = [share for share in absent if self._clocks[share] <= self._present]
        for share in stale or absent[: SHARES_MAX // 2]:
            del self._clocks[share]
