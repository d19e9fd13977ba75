"""Keep token buckets by name, in a table of bounded size.

A bucket has `burst` tokens and regains one every `refill_s`. Only the time when it will be full again
is stored (the generic cell rate algorithm, ITU-T I.371): one number for each name that has taken a
token recently. A full table drops the name that took a token longest ago, which refills that bucket:
to profit from that, an attacker needs more names than the table can store.
"""

from collections import OrderedDict
from collections.abc import Callable

NAMES_MAX = 10_000
_ROUNDING_S = 1e-6
"""Tolerance for rounding errors of floats, which must not cost anybody a token."""


class Buckets:
    """A bucket of the same size for each name.

    Args:
        burst: tokens of a full bucket, at least 1.
        refill_s: time after which one token comes back.
        clock: monotonic, in seconds.
        names_max: maximum number of names in the table.
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
        """Return the number of names in the table."""
        return len(self._full_at)

    def wait_s(self, name: str) -> float:
        """Return the seconds until the bucket has a token; 0 if it has one now."""
        full_at = self._full_at.get(name)
        if full_at is None:
            return 0.0
        return max(0.0, full_at - self._clock() - self._slack_s)

    def take(self, name: str) -> None:
        """Take a token; an empty bucket goes into debt."""
        full_at = max(self._clock(), self._full_at.pop(name, 0.0))
        self._full_at[name] = full_at + self._refill_s
        if len(self._full_at) > self._names_max:
            self._full_at.popitem(last=False)
