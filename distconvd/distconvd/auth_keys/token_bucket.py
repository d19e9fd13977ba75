"""Token buckets by name, in a table of bounded size.

A bucket holds so many tokens, and gets one back in so long. All that has to be remembered of it is
when it will be full again (the generic cell rate algorithm, ITU-T I.371): one number for each name
that has taken a token lately. Over its size the table forgets the name that took one longest ago,
which fills that bucket: who wants to gain by it needs more names than the table has room for.
"""

from collections import OrderedDict
from collections.abc import Callable

NAMES_MAX = 10_000
_ROUNDING_S = 1e-6
"""Sums of floats are a little off; that is not to cost anybody a token."""


class Buckets:
    """A bucket of the same size for each name.

    Args:
        burst: tokens of a full bucket, at least 1.
        refill_s: one comes back after so long.
        clock: seconds that only grow.
        names_max: names remembered.
    """

    def __init__(
        self, burst: int, refill_s: float, clock: Callable[[], float], names_max: int = NAMES_MAX
    ) -> None:
        self._refill_s = refill_s
        self._slack_s = (burst - 1) * refill_s + _ROUNDING_S
        self._clock = clock
        self._names_max = names_max
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """Return how many names are remembered."""
        return len(self._full_at)

    def wait_s(self, name: str) -> float:
        """Return how long it is until the bucket has a token; 0 while it has one."""
        full_at = self._full_at.get(name)
        if full_at is None:
            return 0.0
        return max(0.0, full_at - self._clock() - self._slack_s)

    def take(self, name: str) -> None:
        """Take a token; an empty bucket owes it."""
        full_at = max(self._clock(), self._full_at.pop(name, 0.0))
        self._full_at[name] = full_at + self._refill_s
        if len(self._full_at) > self._names_max:
            self._full_at.popitem(last=False)
