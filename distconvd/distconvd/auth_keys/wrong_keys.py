"""Who is slowed: callers with wrong keys by address, callers with too many requests by key.

**Wrong keys.** Each takes a token of its address; while the bucket is empty the address gets 429 for any
key but one that was good before. So nobody can try keys by the thousand, or fill the log, and no engine
is shut out by its neighbour behind the same gateway. A key that fails is no longer one that was good.

**Too many requests.** Off unless it is set. A request takes a token of its key, one without a key of its
address. What engines do with a key that may do it is not counted: a heartbeat that is refused would
cost a lease, a report hours of encoding, and an engine has a pace of its own. Health checks, which ask for
no key, are not counted either.

An IPv6 address counts as its network of 64 bits, as whoever has one has all of them.
"""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable

from distconvd.auth_keys.token_bucket import Buckets
from distconvd.edge.http import Principal, Route
from distconvd.errors import TooManyRequests

FAILURES_BURST = 20
"""Wrong keys that an address may send at once."""
FAILURE_REFILL_S = 3.0
"""One more is allowed after so long."""
GOOD_KEYS_MAX = 10_000
"""Keys remembered as good, while the daemon runs."""


class WrongKeys:
    """The bucket of each address that sends wrong keys; see the module.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.buckets = Buckets(FAILURES_BURST, FAILURE_REFILL_S, clock)
        self.good: OrderedDict[int, None] = OrderedDict()
        """Hashes of keys, as no key should lie in memory longer than it must. They are Python's own,
        salted by process: all that knowing one gives is the right to be refused at once."""

    def check(self, key: str, peer: str) -> None:
        """Raise `TooManyRequests` for a key that is not known to be good, of an empty bucket."""
        if not len(self.buckets) or hash(key) in self.good:
            return
        address = address_of(peer)
        wait_s = self.buckets.wait_s(address)
        if wait_s > 0:
            raise _slowed(f"Too many wrong keys came from {address}", wait_s)

    def failed(self, key: str, peer: str) -> None:
        """Take a token, and forget that the key was good: it has been revoked, or has ended."""
        self.good.pop(hash(key), None)
        self.buckets.take(address_of(peer))

    def succeeded(self, key: str) -> None:
        """Remember a good key."""
        known = hash(key)
        if known in self.good:
            self.good.move_to_end(known)
            return
        self.good[known] = None
        if len(self.good) > GOOD_KEYS_MAX:
            self.good.popitem(last=False)


class RateLimit:
    """The bucket of each key, or address without one; see the module.

    Args:
        per_s: requests a second, in the long run.
        burst: requests at once.
        clock: seconds that only grow.
    """

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float]) -> None:
        self._limit_text = f"{per_s:g} requests a second, {burst} at once"
        self.buckets = Buckets(burst, 1 / per_s, clock)

    def take(self, principal: Principal, route: Route, peer: str, *, keyed: bool) -> None:
        """Count a request; raises `TooManyRequests`, and then it is not counted.

        Args:
            principal: who is calling.
            route: what is called.
            peer: where from.
            keyed: whether the request carries a key.
        """
        if route.role == "engine" and principal.roles & {"engine", "admin"}:
            return
        name = f"key {principal.name!r}" if keyed else f"address {address_of(peer)}"
        wait_s = self.buckets.wait_s(name)
        if wait_s > 0:
            raise _slowed(f"Over the rate limit of {name} ({self._limit_text})", wait_s)
        self.buckets.take(name)


def _slowed(why: str, wait_s: float) -> TooManyRequests:
    seconds = max(1, math.ceil(wait_s))
    return TooManyRequests(f"{why}; wait {seconds} s.", headers={"Retry-After": str(seconds)})


def address_of(peer: str) -> str:
    """Return what a peer is counted by: `10.0.0.7` of `10.0.0.7:42682`, `2001:db8::/64` of
    `[2001:db8::1]:80`, and what is no address as it is."""
    host, colon, port = peer.rpartition(":")
    host = host.strip("[]") if colon and port.isdecimal() else peer
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:  # IPv4 on a socket of both kinds, such as systemd's
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))
