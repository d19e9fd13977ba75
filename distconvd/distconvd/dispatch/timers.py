"""Keep the deadlines in one heap of (time, kind, key).

An entry is a reminder to check, not an order: its handler checks whether the deadline has really
passed and, where it has moved, adds another reminder.
"""

import heapq
from typing import Literal

TimerKind = Literal["lease", "engine", "reservation", "delay", "excluded", "hold", "quarantine"]


class Timers:
    """A heap of reminders; at most one for each (kind, key), the earliest wins."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, TimerKind, str]] = []
        self._at: dict[tuple[TimerKind, str], float] = {}

    def add(self, at_s: float, kind: TimerKind, key: str) -> None:
        """Remind at `at_s` (monotonic seconds), unless there is an earlier reminder already."""
        present_s = self._at.get((kind, key))
        if present_s is None or at_s < present_s:
            self._at[kind, key] = at_s
            heapq.heappush(self._heap, (at_s, kind, key))

    def due(self, now_s: float, limit: int) -> list[tuple[TimerKind, str]]:
        """Remove and return the reminders that are due, at most the earliest `limit` of them."""
        found: list[tuple[TimerKind, str]] = []
        while self._heap and self._heap[0][0] <= now_s and len(found) < limit:
            at_s, kind, key = heapq.heappop(self._heap)
            if self._at.get((kind, key)) == at_s:
                del self._at[kind, key]
                found.append((kind, key))
        return found

    def next_s(self) -> float | None:
        """Return when the next reminder is due (monotonic seconds), or None."""
        return self._heap[0][0] if self._heap else None
