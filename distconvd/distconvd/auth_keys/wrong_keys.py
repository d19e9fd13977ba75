"""Limit wrong keys by address, and the rate of requests by key.

**Wrong keys.** Each takes a token from its address's bucket; while that is empty, the address's wrong
keys get 429 instead of 401 and are not logged. So nobody can fill the log. A right key is never
refused, whoever else sends wrong ones from its address: engines share gateways and proxies, and a lock
that anybody can close is a way to stop a farm. That a key cannot be guessed rests on its length
(`distconvd keys` makes 256 random bits).

**Rate of requests.** Off by default. A request takes a token from its key's bucket, or from its
address's if it has no key. An engine's calls, made with a key that may make them, are not counted: a
rejected heartbeat would cost a lease, a rejected report hours of encoding, and engines limit their own
pace. Health checks, which need no key, are not counted either.

An IPv6 address counts as its /64 network, because its owner usually has all addresses in it.
"""

import ipaddress
import math
from collections.abc import Callable

from distconvd.auth_keys.token_bucket import Buckets
from distconvd.edge.http import Principal, Route
from distconvd.errors import TooManyRequests

FAILURES_BURST = 20
"""Wrong keys that an address may send in one burst."""
FAILURE_REFILL_S = 3.0
"""Time after which one more is allowed."""


class WrongKeys:
    """The bucket of each address that sends wrong keys; see the module.

    Args:
        clock: monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._buckets = Buckets(FAILURES_BURST, FAILURE_REFILL_S, clock)

    def count(self, peer: str) -> None:
        """Count a wrong key; raises `TooManyRequests` if its address has no token for it."""
        address = address_of(peer)
        wait_s = self._buckets.wait_s(address)
        if wait_s > 0:
            raise _too_many(f"Too many wrong keys from {address}", wait_s)
        self._buckets.take(address)


class RateLimit:
    """The bucket of each key, or address without one; see the module.

    Args:
        per_s: requests per second, on average.
        burst: requests in one burst.
        clock: monotonic, in seconds.
    """

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float]) -> None:
        self._limit_text = f"{per_s:g}/s, bursts of up to {burst}"
        self.buckets = Buckets(burst, 1 / per_s, clock)

    def take(self, principal: Principal, route: Route, peer: str, *, keyed: bool) -> None:
        """Count a request; raises `TooManyRequests` over the limit, without counting it.

        Args:
            principal: who is calling.
            route: the route that is called.
            peer: the caller's address.
            keyed: whether the request carries a key.
        """
        if route.role == "engine" and principal.roles & {"engine", "admin"}:
            return
        name = f"key {principal.name!r}" if keyed else f"address {address_of(peer)}"
        wait_s = self.buckets.wait_s(name)
        if wait_s > 0:
            raise _too_many(f"The {name} is over its rate limit ({self._limit_text})", wait_s)
        self.buckets.take(name)


def _too_many(why: str, wait_s: float) -> TooManyRequests:
    seconds = max(1, math.ceil(wait_s))
    return TooManyRequests(f"{why}; wait {seconds} s.", headers={"Retry-After": str(seconds)})


def address_of(peer: str) -> str:
    """Return the key under which a peer is counted.

    It is `10.0.0.7` for `10.0.0.7:42682`, `2001:db8::/64` for `[2001:db8::1]:80`, and the text itself
    if that is not an address.
    """
    host, colon, port = peer.rpartition(":")
    host = host.strip("[]") if colon and port.isdecimal() else peer
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:  # IPv4 on a dual-stack socket, such as systemd's
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))
