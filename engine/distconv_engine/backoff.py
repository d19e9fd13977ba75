"""Wait longer after each failure, up to a cap, with jitter.

The jitter keeps engines from returning all at the same moment when a daemon comes back.
"""

import random


class Backoff:
    """Delays that double from `first_s` up to `cap_s`; each is shortened by up to a half."""

    def __init__(self, first_s: float = 0.5, cap_s: float = 30.0) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self._failures = 0

    def next_s(self) -> float:
        """Return the next delay, in seconds."""
        full_s = min(self._cap_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return full_s * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin again after a success."""
        self._failures = 0
