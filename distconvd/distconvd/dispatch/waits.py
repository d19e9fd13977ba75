"""Measure waits by the monotonic clock, although records state their ends on the wall clock.

A record must say when a wait ends in a way that survives a restart, so it has a time on the wall clock.
That is converted once, when the record is first seen, and never again: a step of the wall clock
afterwards neither prolongs nor ends a wait. Since the clock may also have been set back before (or
while the daemon was down), no wait is longer than its kind allows.

This is for durations. A start time that a person chose is a moment: it follows the wall clock.
"""

from typing import Literal

from distconvd.dispatch.decision import Instant

WaitKind = Literal["backoff", "quarantine", "elsewhere"]


class Waits:
    """Ends of waits by kind and key (monotonic seconds); see the module."""

    def __init__(self) -> None:
        self._ends: dict[tuple[WaitKind, str], tuple[int, float]] = {}

    def known_end_s(self, kind: WaitKind, key: str, stated_ms: int) -> float | None:
        """Return when a wait ends if it was converted before; None if its record states another end."""
        known = self._ends.get((kind, key))
        return known[1] if known is not None and known[0] == stated_ms else None

    def end_s(
        self, kind: WaitKind, key: str, stated_ms: int, longest_s: float, now: Instant
    ) -> float:
        """Return when a wait ends.

        Args:
            kind: what waits.
            key: the job or engine.
            stated_ms: the end that its record states (ms since the epoch).
            longest_s: the longest time that is left of such a wait.
            now: the present, to convert by.
        """
        end_s = self.known_end_s(kind, key, stated_ms)
        if end_s is None:
            left_s = (stated_ms - now.wall_ms) / 1000
            end_s = now.mono_s + min(left_s, longest_s)
            self._ends[kind, key] = stated_ms, end_s
        return end_s

    def forget(self, kind: WaitKind, key: str) -> None:
        """Forget a wait, if there is one."""
        self._ends.pop((kind, key), None)
