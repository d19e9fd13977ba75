"""Decide which web pages may call the API from a browser (CORS, WHATWG Fetch section 3.2).

Off by default. A browser lets a page send a key, and read our reply, only if we name the page's
origin; the setting `cors_origins` lists the origins that are named. The browser's own credentials
(cookies, stored passwords) are never asked for, so `*` is safe where a key is required: a page has to
know the key.

The headers that a page may send and read need no second list: they are collected from the route
table, which describes the headers of each request and reply.

A daemon without a key needs more. A browser sends some requests of any page to
`http://127.0.0.1:8080` and only hides the replies, and it does not restrict websockets at all. So a
request that carries no key and names a foreign origin is rejected, whether CORS is on or not
(`check_keyless`).

A page's owner may also point the page's host name to this machine (DNS rebinding); the browser then
takes our replies for the page's own. `Host` still is that name. So a daemon without a key answers only
to names that no stranger can redirect: addresses, names without a dot, `localhost`, this machine's
name, and those in the settings `host`, `listen` and `cors_origins`.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import replace

from distconvd.edge.bind_address import is_loopback
from distconvd.edge.http import Reply, Request, Response, Route
from distconvd.errors import Forbidden

ANY = "*"
PREFLIGHT_MAX_AGE_S = 600
"""How long a browser may cache the answer to a preflight request."""

_ORIGIN = re.compile(r"https?://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_DEFAULT_PORT = re.compile(r"http:.*:80|https:.*:443")
# Headers of every request and reply, which the routes do not describe one by one.
_REQUEST_HEADERS = ("Authorization", "Content-Type", "X-API-Key", "X-Request-Id")
_REPLY_HEADERS = ("Accept", "Allow", "Retry-After", "WWW-Authenticate", "X-Request-Id")


def parse_origin(text: str) -> str:
    """Return an origin as browsers send it; raises `ValueError` that says what is wrong."""
    origin = text.strip().lower()
    if origin == ANY:
        return origin
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(
            f"{text!r}: expected an origin such as https://HOST or http://HOST:PORT, or *"
        )
    if _DEFAULT_PORT.fullmatch(origin):
        raise ValueError(f"{text!r}: leave out the default port, as browsers do")
    return origin


class Cors:
    """The allow-list, and what it means for a request and its reply.

    Args:
        origins: those that may call, each as `parse_origin` accepts it; empty: CORS is off.
        routes: the whole route table.
        hosts: names, in addition to this machine's, under which keyless requests may call the daemon.
    """

    def __init__(
        self, origins: Iterable[str], routes: Iterable[Route], hosts: Iterable[str] = ()
    ) -> None:
        self._hosts = frozenset(map(_normalize_host, (*hosts, socket.gethostname())))
        self._origins = frozenset(parse_origin(origin) for origin in origins)
        self._any = ANY in self._origins
        docs = [route.doc for route in routes if route.doc is not None]
        sent = {p.name for doc in docs for p in doc.parameters if p.where == "header"}
        exposed = {
            name
            for doc in docs
            for answer in doc.answers.values()
            for name in (*answer.headers, *answer.maybe_headers)
        }
        self._sent = ", ".join(sorted(sent.union(_REQUEST_HEADERS)))
        self._exposed_headers = ", ".join(sorted(exposed.union(_REPLY_HEADERS)))

    def with_headers(self, reply: Reply, request: Request) -> Reply:
        """Return the reply with its CORS headers; unchanged while CORS is off."""
        if not self._origins or not isinstance(reply, Response):
            return reply
        headers = dict(reply.headers)
        if not self._any:
            # Also where there is no Origin: a cache must not give this reply to a page.
            headers["Vary"] = ", ".join(filter(None, (headers.get("Vary"), "Origin")))
        origin = request.headers.get("origin")
        if origin is not None and self._allows(origin):
            headers["Access-Control-Allow-Origin"] = ANY if self._any else origin
            headers |= self._for_preflight(reply, request) or {
                "Access-Control-Expose-Headers": self._exposed_headers
            }
        return replace(reply, headers=headers)

    def check_keyless(self, headers: Mapping[str, str]) -> None:
        """Raise `Forbidden` for a request without a key that a foreign web page may have made."""
        self._check_host(headers.get("host", ""))
        origin = headers.get("origin")
        if origin is None or self._allows(origin) or _is_own(origin, headers.get("host", "")):
            return
        raise Forbidden(
            f"A web page of {origin[:256]!r} may not use a daemon without a key; to allow it, "
            "add it to the setting cors_origins."
        )

    def _check_host(self, host: str) -> None:
        name = _normalize_host(re.sub(r":[0-9]*$", "", host))
        listed = (re.sub(r":[0-9]*$", "", o.partition("://")[2]) for o in self._origins)
        if _cannot_be_rebound(name) or name in self._hosts or name in listed:
            return
        raise Forbidden(
            f"A daemon without a key does not answer to the name {host[:256]!r}, because anybody can"
            " point such a name to this machine: use the machine's address or name, add the name to"
            " the setting host or listen, or start the daemon with a key."
        )

    def _allows(self, origin: str) -> bool:
        return self._any or origin in self._origins

    def _for_preflight(self, reply: Response, request: Request) -> dict[str, str]:
        """Return the headers that answer a preflight request; none for any other request."""
        allowed = reply.headers.get("Allow")
        asked = "access-control-request-method" in request.headers
        if request.method != "OPTIONS" or not asked or allowed is None:
            return {}
        return {
            "Access-Control-Allow-Methods": allowed,
            "Access-Control-Allow-Headers": self._sent,
            "Access-Control-Max-Age": str(PREFLIGHT_MAX_AGE_S),
        }


def _normalize_host(name: str) -> str:
    return name.lower().removesuffix(".")


def _cannot_be_rebound(name: str) -> bool:
    """Whether no stranger can point the name to this machine: it is an address, or not in DNS."""
    if "." not in name and ":" not in name:
        return True
    try:
        ipaddress.ip_address(name.strip("[]").partition("%")[0])
    except ValueError:
        return name.endswith(".localhost")
    return True


def _is_own(origin: str, host: str) -> bool:
    """Whether we have served the page ourselves.

    Its host must be a loopback name: after DNS rebinding a foreign name points to this machine, and
    then Origin and Host are equal, too.
    """
    name = re.sub(r":[0-9]*$", "", host)
    return origin.partition("://")[2] == host and is_loopback(name)


NO_ORIGINS = Cors((), ())
