"""Which web pages may call the API from a browser (CORS, WHATWG Fetch section 3.2). Off by default.

A browser lets a page read a reply of ours, and send a key at all, only if we name the page's origin; who
is named is the setting `cors_origins`. Credentials of the browser's own (cookies, passwords that it
remembers) are never asked for, so `*` is no danger where there is a key: a page has to know it.

What a page may send and read besides is not a second list: it is made from the route table, which
tells the headers of each request and reply.

A daemon without a key is another matter. A browser sends some requests of any page to
`http://127.0.0.1:8080` and only hides the replies, and it puts no bounds to websockets at all. So what
carries no key and names a foreign origin is refused, whether CORS is on or not (`check_keyless`).

A page may also have the name that it came by pointed here meanwhile (DNS rebinding), and then the
browser takes our replies for the page's own. Its `Host` is that name still. So a daemon without a key
answers only to names that no stranger can point anywhere: addresses, names without a dot, `localhost`,
this machine's, and those that it is told to listen on or to let call.
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
"""How long a browser may go by what it was told."""

_ORIGIN = re.compile(r"https?://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_DEFAULT_PORT = re.compile(r"http:.*:80|https:.*:443")
# Those that every route takes or answers with, and that no route tells of.
_REQUEST_HEADERS = ("Authorization", "Content-Type", "X-API-Key", "X-Request-Id")
_REPLY_HEADERS = ("Accept", "Allow", "Retry-After", "WWW-Authenticate", "X-Request-Id")


def parse_origin(text: str) -> str:
    """Return an origin as browsers send it; raises `ValueError` that says what is wrong."""
    origin = text.strip().lower()
    if origin == ANY:
        return origin
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(f"{text!r} is no origin: write https://HOST or http://HOST:PORT, or *")
    if _DEFAULT_PORT.fullmatch(origin):
        raise ValueError(f"{text!r}: leave the port out, as browsers do where it is the usual one")
    return origin


class Cors:
    """The allow-list, and what it means for a request and its reply.

    Args:
        origins: who may call, each as `parse_origin` takes it; none: nobody, and nothing is said.
        routes: the whole route table.
        hosts: names besides this machine's that a request without a key may call the daemon by.
    """

    def __init__(
        self, origins: Iterable[str], routes: Iterable[Route], hosts: Iterable[str] = ()
    ) -> None:
        self._hosts = frozenset(map(_plain, (*hosts, socket.gethostname())))
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

    def opened(self, reply: Reply, request: Request) -> Reply:
        """Return the reply with what a browser must be told; as it is while nobody is on the list."""
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
        """Raise `Forbidden` for a request without a key that a foreign web page has made, or may have."""
        self._check_host(headers.get("host", ""))
        origin = headers.get("origin")
        if origin is None or self._allows(origin) or _is_own(origin, headers.get("host", "")):
            return
        raise Forbidden(
            f"A web page of {origin[:256]!r} may not use a daemon without a key; if it is to, "
            "name it in the setting cors_origins."
        )

    def _check_host(self, host: str) -> None:
        name = _plain(re.sub(r":[0-9]*$", "", host))
        listed = (re.sub(r":[0-9]*$", "", o.partition("://")[2]) for o in self._origins)
        if _is_unbendable(name) or name in self._hosts or name in listed:
            return
        raise Forbidden(
            f"A daemon without a key does not answer to the name {host[:256]!r}, which anybody may"
            " point here: call it by its address or this machine's name, name it in host or listen,"
            " or start the daemon with a key."
        )

    def _allows(self, origin: str) -> bool:
        return self._any or origin in self._origins

    def _for_preflight(self, reply: Response, request: Request) -> dict[str, str]:
        """Return the answer to "may I?", which a browser asks before the request; else nothing."""
        allowed = reply.headers.get("Allow")
        asked = "access-control-request-method" in request.headers
        if request.method != "OPTIONS" or not asked or allowed is None:
            return {}
        return {
            "Access-Control-Allow-Methods": allowed,
            "Access-Control-Allow-Headers": self._sent,
            "Access-Control-Max-Age": str(PREFLIGHT_MAX_AGE_S),
        }


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_unbendable(name: str) -> bool:
    """Whether no stranger can have a name point to this machine: it is an address, or none of DNS."""
    if "." not in name and ":" not in name:
        return True
    try:
        ipaddress.ip_address(name.strip("[]").partition("%")[0])
    except ValueError:
        return name.endswith(".localhost")
    return True


def _is_own(origin: str, host: str) -> bool:
    """Whether a page is one that we have served ourselves.

    Its host must be this machine's own: a foreign name may have been made to point here meanwhile
    (DNS rebinding), and then Origin and Host are equal, too.
    """
    name = re.sub(r":[0-9]*$", "", host)
    return origin.partition("://")[2] == host and is_loopback(name)


NO_ORIGINS = Cors((), ())
