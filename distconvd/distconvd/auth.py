"""Who is calling, and may they? An authenticator is a plugin; the check of roles is not."""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Protocol

from distconvd.edge.http import Principal, Request, Route
from distconvd.errors import Forbidden, Unauthorized

ALL_ROLES = frozenset({"read", "submit", "engine", "admin"})


class Authenticator(Protocol):
    """Tells who holds a key."""

    def authenticate(self, key: str | None, peer: str) -> Principal:
        """Return who is calling; raises `Unauthorized`.

        Args:
            key: what the request carried as `X-API-Key` or `Authorization: Bearer`, or None.
            peer: the caller's address, for logs.
        """
        ...


def gate(authenticator: Authenticator) -> Callable[[Request, Route], Principal]:
    """Return the edge's callback: who is calling, provided that the route's role is theirs."""

    def authenticate(request: Request, route: Route) -> Principal:
        principal = authenticator.authenticate(key_of(request.headers), request.peer)
        if route.role not in principal.roles and "admin" not in principal.roles:
            raise Forbidden(
                f"Key {principal.name!r} has no role {route.role!r}, which this call needs."
            )
        return principal

    return authenticate


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
