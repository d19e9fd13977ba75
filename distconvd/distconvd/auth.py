"""Who is calling, and may they? An authenticator is a plugin; roles and throttling are not.

A caller with wrong keys is slowed by address: each takes a token from a bucket that refills slowly,
and while it is empty the address gets 429 for any key but one that was good before. So nobody can
try keys by the thousand, or fill the log, and no engine is shut out by its neighbour behind the same
gateway.
"""

import hashlib
import hmac
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Protocol

import trio

from distconvd.edge.http import Principal, Request, Route
from distconvd.errors import Forbidden, TooManyRequests, Unauthorized

log = logging.getLogger("distconvd.auth")

ALL_ROLES = frozenset({"read", "submit", "engine", "admin"})

FAILURES_BURST = 20
"""Wrong keys that an address may send at once."""
FAILURE_REFILL_S = 3.0
"""One more is allowed after so long."""
ADDRESSES_MAX = 10_000
"""Addresses remembered for that; the one that failed longest ago is forgotten."""
GOOD_KEYS_MAX = 10_000
"""Keys remembered as good, while the daemon runs."""


class Authenticator(Protocol):
    """Tells who holds a key.

    It may also have `reload()`, which is called on SIGHUP, and `run(task_status)`, which is then run
    as `hookspecs.Service` is.
    """

    def authenticate(self, key: str | None, peer: str) -> Principal:
        """Return who is calling; raises `Unauthorized`.

        Args:
            key: what the request carried as `X-API-Key` or `Authorization: Bearer`, or None.
            peer: the caller's address, for logs.
        """
        ...


class Throttle:
    """Token buckets by address; see the module.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """Address to when its bucket is full again."""
        self._good: OrderedDict[str, None] = OrderedDict()

    def check(self, key: str, address: str) -> None:
        """Raise `TooManyRequests` for a key that is not known to be good, of an empty bucket."""
        full_at = self._full_at.get(address)
        if full_at is None or key in self._good:
            return
        wait_s = full_at - self._clock() - (FAILURES_BURST - 1) * FAILURE_REFILL_S
        if wait_s > 0:
            raise TooManyRequests(
                f"Too many wrong keys came from {address}; wait {wait_s:.0f} s.",
                headers={"Retry-After": str(int(wait_s) + 1)},
            )

    def failed(self, address: str) -> None:
        """Take a token."""
        now_s = self._clock()
        full_at = max(now_s, self._full_at.pop(address, 0.0))
        self._full_at[address] = full_at + FAILURE_REFILL_S
        if len(self._full_at) > ADDRESSES_MAX:
            self._full_at.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Remember a good key."""
        if key not in self._good:
            self._good[key] = None
            if len(self._good) > GOOD_KEYS_MAX:
                self._good.popitem(last=False)


def gate(
    authenticator: Authenticator,
    observe_refusal: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = trio.current_time,
) -> Callable[[Request, Route], Principal]:
    """Return the edge's callback: who is calling, provided that the route's role is theirs.

    Args:
        authenticator: knows the keys.
        observe_refusal: is called for each request with a wrong key (metrics).
        clock: seconds that only grow.
    """
    throttle = Throttle(clock)

    def identify(key: str | None, peer: str) -> Principal:
        if key is None:
            return authenticator.authenticate(None, peer)
        address = address_of(peer)
        throttle.check(key, address)
        try:
            found = authenticator.authenticate(key, peer)
        except Unauthorized:
            throttle.failed(address)
            observe_refusal()
            log.warning("a wrong key was refused", extra={"peer": peer})
            raise
        throttle.succeeded(key)
        return found

    def authenticate(request: Request, route: Route) -> Principal:
        principal: object = identify(key_of(request.headers), request.peer)
        if not isinstance(principal, Principal):  # pyright: ignore[reportUnnecessaryIsInstance] - a plugin may answer anything
            kind = type(authenticator).__name__
            raise TypeError(f"the authenticator {kind} answered {principal!r}, no Principal")
        if route.role not in principal.roles and "admin" not in principal.roles:
            raise Forbidden(
                f"Key {principal.name!r} has no role {route.role!r}, which this call needs."
            )
        return principal

    return authenticate


def require_engine(principal: Principal | None, engine_id: str | None) -> None:
    """Raise `Forbidden` where a key that speaks for one engine is used for another, or for none."""
    if principal is None or principal.engine is None or principal.engine == engine_id:
        return
    spoken = "for no engine by name" if engine_id is None else f"for engine {engine_id!r}"
    raise Forbidden(
        f"Key {principal.name!r} speaks for engine {principal.engine!r}, and this call {spoken}."
    )


def address_of(peer: str) -> str:
    """Return a peer's address without its port: `10.0.0.7` of `10.0.0.7:42682`."""
    host, colon, port = peer.rpartition(":")
    return host if colon and port.isdecimal() else peer


def key_of(headers: Mapping[str, str]) -> str | None:
    """Return the key that a request carries; `X-API-Key` goes before `Authorization: Bearer`."""
    key = headers.get("x-api-key", "").strip()
    if key:
        return key
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def same_key(given: str, expected: str) -> bool:
    """Compare two keys in a time that tells nothing about them, their length included.

    `given` is a header's value: each character stands for one byte on the wire (latin-1), and a key
    beyond ASCII is sent as UTF-8.
    """
    sent = hashlib.sha256(given.encode("latin-1", "replace")).digest()
    return hmac.compare_digest(sent, hashlib.sha256(expected.encode()).digest())


def missing_key() -> Unauthorized:
    """Return the error for a request without a key."""
    return Unauthorized(
        "Unauthorized: Missing 'X-API-Key' header.", headers={"WWW-Authenticate": "Bearer"}
    )


def wrong_key() -> Unauthorized:
    """Return the error for a key that is not known; it does not say what was wrong with it."""
    return Unauthorized("Unauthorized", headers={"WWW-Authenticate": "Bearer"})
