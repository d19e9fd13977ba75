"""Authenticate and authorize callers.

Authenticators are plugins; roles and rate limits are not. The order is: who is calling (401, or 429
after too many wrong keys from the same address), whether they have sent too many requests (429),
whether their role suffices (403). A request without a key that is accepted nevertheless must not come
from a foreign web page (`distconvd.edge.cors`).
"""

import hashlib
import hmac
import logging
from collections.abc import Callable
from typing import Protocol

import trio

from distconvd.auth_keys.wrong_keys import RateLimit, WrongKeys
from distconvd.edge.cors import NO_ORIGINS, Cors
from distconvd.edge.http import Principal, Request, Route
from distconvd.edge.request_head import key_of
from distconvd.errors import Forbidden, Unauthorized

log = logging.getLogger("distconvd.auth")

ALL_ROLES = frozenset({"read", "submit", "engine", "admin"})


class Authenticator(Protocol):
    """Identifies the owner of a key.

    It may also have `reload()`, which is called on SIGHUP, and `run(task_status)`, which is run like
    a `hookspecs.Service`.
    """

    def authenticate(self, key: str | None, peer: str) -> Principal:
        """Return who is calling; raises `Unauthorized`.

        Args:
            key: what the request carried as `X-API-Key` or `Authorization: Bearer`, or None.
            peer: the caller's address, for logs.
        """
        ...


def gate(
    authenticator: Authenticator,
    observe_refusal: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = trio.current_time,
    *,
    rate_limit: RateLimit | None = None,
    cors: Cors = NO_ORIGINS,
) -> Callable[[Request, Route], Principal]:
    """Return the edge's callback that authenticates and authorizes each request.

    Args:
        authenticator: knows the keys.
        observe_refusal: called for each request with a wrong key (metrics).
        clock: monotonic, in seconds.
        rate_limit: of requests; None means no limit.
        cors: whose web pages may call.
    """
    wrong_keys = WrongKeys(clock)

    def identify(key: str, peer: str) -> Principal:
        try:
            return authenticator.authenticate(key, peer)
        except Unauthorized:
            wrong_keys.count(peer)
            observe_refusal()
            log.warning("a request with a wrong key was refused", extra={"peer": peer})
            raise

    def is_still_known(request: Request) -> bool:
        try:
            now: object = authenticator.authenticate(key_of(request.headers), request.peer)
        except Unauthorized:
            return False
        before, route = request.principal, request.route
        now = _checked(authenticator, now)
        if before is None or route is None or now.engine != before.engine:
            return False
        return bool(now.roles & {route.role, "admin"})

    def authenticate(request: Request, route: Route) -> Principal:
        key, peer = key_of(request.headers), request.peer
        if key is None:
            principal = _checked(authenticator, authenticator.authenticate(None, peer))
            cors.check_keyless(request.headers)
        else:
            principal = _checked(authenticator, identify(key, peer))
        request.principal = principal  # set now, so that the log names a caller rejected below
        request.recheck = is_still_known
        if rate_limit is not None:
            rate_limit.take(principal, route, peer, keyed=key is not None)
        if route.role not in principal.roles and "admin" not in principal.roles:
            raise Forbidden(
                f"Key {principal.name!r} does not have the role {route.role!r}, which this call needs."
            )
        return principal

    return authenticate


def _checked(authenticator: Authenticator, answer: object) -> Principal:
    """Return what a plugin answered; raises `TypeError` unless it is a `Principal`."""
    if not isinstance(answer, Principal):
        kind = type(authenticator).__name__
        raise TypeError(f"the authenticator {kind} returned {answer!r}, not a Principal")
    return answer


def require_engine(principal: Principal | None, engine_id: str | None) -> None:
    """Raise `Forbidden` if a key of one engine is used for another engine, or without naming one."""
    if principal is None or principal.engine is None or principal.engine == engine_id:
        return
    named = "names no engine" if engine_id is None else f"is for engine {engine_id!r}"
    raise Forbidden(
        f"Key {principal.name!r} is only for engine {principal.engine!r}, but this call {named}."
    )


def same_key(given: str, expected: str) -> bool:
    """Compare two keys in a time that reveals nothing about them, not even their length.

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
    """Return the error for an unknown key; it does not say what was wrong with it."""
    return Unauthorized("Unauthorized", headers={"WWW-Authenticate": "Bearer"})
