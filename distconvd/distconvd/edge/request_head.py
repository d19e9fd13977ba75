"""Read a request's head, and check it beyond what h11 checks.

h11 rejects malformed lines, conflicting lengths, a missing Host. This module also rejects what a
proxy and we could read differently (request smuggling, RFC 9112 section 11.2): a length together with
a transfer coding, a transfer coding in HTTP/1.0. And it rejects a head over its limit that arrives in
one piece, which h11 accepts.
"""

import ipaddress
import itertools
import os
import re
from collections.abc import Iterable, Mapping

import h11

from distconvd.edge.problems import VersionNotSupported
from distconvd.errors import BadRequest, HeadTooLarge

_SANE_ID = re.compile(r"[A-Za-z0-9._:+=@/-]{1,128}")
_ONCE = ("idempotency-key",)
"""Headers that must not be repeated, and for which h11 does not check it."""
# Unique across restarts and daemons, and cheap: a random prefix, then a counter.
_id_prefix = os.urandom(4).hex()
_id_counter = itertools.count(1)

UNIX_PEERS = "unix"
"""In a list of trusted proxies: whoever connects by a unix socket."""
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def read_headers(request: h11.Request) -> dict[str, str]:
    """Return the headers by lower-case name, repeated ones joined with `, `."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.headers.raw_items():
        name = raw_name.decode("ascii").lower()
        value = raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def check_head(request: h11.Request, headers: Mapping[str, str]) -> None:
    """Raise `BadRequest` or `VersionNotSupported` for a head that is ambiguous or unsupported."""
    _check_once(request, headers)
    version = request.http_version
    if not version.startswith(b"1."):
        raise VersionNotSupported("Only HTTP/1.1 and HTTP/1.0 are supported.")
    if "transfer-encoding" in headers:
        if "content-length" in headers:
            raise BadRequest("The head has both Content-Length and Transfer-Encoding.")
        if version < b"1.1":
            raise BadRequest("HTTP/1.0 has no Transfer-Encoding.")


def _check_once(request: h11.Request, headers: Mapping[str, str]) -> None:
    """Raise `BadRequest` for a repeated header that may occur only once."""
    for name in _ONCE:
        if name in headers and [raw for raw, _ in request.headers].count(name.encode()) > 1:
            raise BadRequest(f"The head has {name} more than once; send it once.", field=name)


def check_size(request: h11.Request, bytes_max: int) -> None:
    """Raise `HeadTooLarge` over the limit; only called when that many bytes have arrived."""
    size = len(request.method) + len(request.target) + 14
    for name, value in request.headers:
        size += len(name) + len(value) + 4
    if size > bytes_max:
        raise HeadTooLarge(f"The request line and headers exceed {bytes_max} bytes together.")


def is_last(request: h11.Request, headers: Mapping[str, str]) -> bool:
    """Whether the client sends no other request on this connection (RFC 9112 section 9.3)."""
    if request.http_version < b"1.1":
        return True
    connection = headers.get("connection")
    if connection is None:
        return False
    return "close" in (option.strip() for option in connection.lower().split(","))


def request_id_for(headers: Mapping[str, str]) -> str:
    """Return the caller's request id if it is well-formed, else a new one."""
    theirs = headers.get("x-request-id")
    if theirs is not None and _SANE_ID.fullmatch(theirs):
        return theirs
    return new_request_id()


def new_request_id() -> str:
    """Return an id for a request that has none of its own."""
    return f"{_id_prefix}-{next(_id_counter):x}"


def key_of(headers: Mapping[str, str]) -> str | None:
    """Return the key that a request carries; `X-API-Key` precedes `Authorization: Bearer`."""
    key = headers.get("x-api-key", "").strip()
    if key:
        return key
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


class TrustedProxies:
    """The proxies whose `X-Forwarded-For` is believed.

    Args:
        named: addresses and networks (`10.0.0.7`, `10.0.0.0/8`, `::1`), or `unix`; raises
            `ValueError` for anything else.
    """

    def __init__(self, named: Iterable[str] = ()) -> None:
        names = list(named)
        self._unix = UNIX_PEERS in names
        self._networks = [ipaddress.ip_network(name) for name in names if name != UNIX_PEERS]

    def client_of(self, headers: Mapping[str, str], peer: str) -> str:
        """Return the address of the client that a request comes from, for limits and logs.

        It is the peer's own unless that is a trusted proxy's; then it is the last address in
        `X-Forwarded-For` that is not a trusted proxy's. What stands before it anybody may have written.
        """
        if not (self._unix or self._networks) or not self._trusts(peer):
            return peer
        for hop in reversed(headers.get("x-forwarded-for", "").split(",")):
            address = _address_in(hop.strip())
            if address is None:
                break
            peer = f"[{address}]:0" if address.version == 6 else f"{address}:0"
            if not self._trusts(peer):
                break
        return peer

    def _trusts(self, peer: str) -> bool:
        address = _address_in(peer)
        if address is None:
            return self._unix
        return any(address in network for network in self._networks)


NO_PROXIES = TrustedProxies()


def _address_in(peer: str) -> _Address | None:
    """Return the address in `A`, `A:PORT`, `[A]` or `[A]:PORT`; None if there is none."""
    if peer.startswith("["):
        host = peer[1:].partition("]")[0]
    else:
        host = peer.partition(":")[0] if peer.count(":") == 1 else peer
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
