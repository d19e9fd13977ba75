"""Decide when a request may be sent again, and how long to wait before that.

Safe to repeat: a GET, and a submission that carries an `Idempotency-Key` (the daemon answers the
second one with the job of the first). Nothing else: a `retry` sent twice could start a job twice.
Worth repeating: no reply at all, or a status that means "not now".
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx

NOT_NOW = frozenset({429, 502, 503, 504})
RETRY_AFTER_MAX_S = 10.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after which delays, a safe request is sent again.

    Args:
        retries: how many times after the first.
        first_delay_s: the delay before the first; each further one is twice as long.
        jitter: returns a factor for each delay, so that clients do not all return at the same time.
    """

    retries: int = 3
    first_delay_s: float = 0.2
    jitter: Callable[[], float] = lambda: random.uniform(0.75, 1.25)

    def delays_s(self) -> Iterator[float]:
        """Iterate over the delays in seconds, one for each retry."""
        for number in range(self.retries):
            yield self.first_delay_s * 2**number * self.jitter()


def is_safe_to_repeat(request: httpx.Request) -> bool:
    """Whether sending `request` twice has the effect of sending it once."""
    return request.method in {"GET", "HEAD"} or "Idempotency-Key" in request.headers


def says_not_now(response: httpx.Response) -> bool:
    """Whether the same request may well succeed in a moment."""
    return response.status_code in NOT_NOW


def asked_delay_s(response: httpx.Response, planned_s: float) -> float:
    """Return the delay that `Retry-After` (RFC 9110, 10.2.3) asks for, within `RETRY_AFTER_MAX_S`."""
    asked = response.headers.get("Retry-After", "")
    if not asked.isdigit():
        return planned_s
    return min(max(float(asked), planned_s), RETRY_AFTER_MAX_S)
