"""Define the values between the HTTP edge and the handlers: request, response, route.

A handler sees neither socket nor h11; the edge knows neither jobs nor engines. Both know only this.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from distconvd.edge.doc import Doc

if TYPE_CHECKING:
    import trio

T = TypeVar("T")

RECHECK_S = 5.0
"""How often the key of a long-lived request is checked again."""

Role = Literal["public", "read", "submit", "engine", "admin"]
BodyMode = Literal["none", "whole", "stream"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling, as the authenticator identified them."""

    name: str
    """The key's name, for logs; never the key."""
    roles: frozenset[str]
    engine: str | None = None
    """The one engine that the key may speak for; None: any."""


class ClientDisconnected(Exception):
    """The client went away in the middle of its body; a reply would reach nobody.

    A handler that streams a body undoes what it had begun and lets the exception propagate.
    """


class BodyReader(Protocol):
    """The body of a request that has not been read yet.

    Error handling: both ways of reading raise `RequestTimeout` for a client that is too slow,
    `BadRequest` for broken framing, and `ClientDisconnected` when it went away.
    """

    async def read_whole(self, limit_bytes: int | None) -> bytes:
        """Return the whole body; raises `BodyTooLarge` over the limit (None: the edge's own)."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives, without a limit on its total length."""
        ...


class ClientLink(Protocol):
    """Whether anybody still waits for the reply; call it by `edge.long_poll.wait_while_wanted`."""

    @property
    def over(self) -> bool:
        """True once the client is known to have hung up, or the daemon drains."""
        ...

    async def wait(self, wait: Callable[[], Awaitable[T]], timeout_s: float) -> T | None:
        """Return what `wait` returns, or None on timeout or when nobody waits any more."""
        ...


@dataclass(slots=True)
class Request:
    """One parsed request.

    `headers` has lower-case names; repeated ones are joined with `, ` (in `query`: with `,`).
    `path` is decoded and has neither the `/api/v1` prefix nor a trailing slash (the root is `/`);
    `params` are the segments that the route's pattern captured. `body` contains the bytes when the
    route reads the `whole` body, and is empty otherwise.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    params: Mapping[str, str]
    reader: BodyReader
    request_id: str
    peer: str
    """Address of the caller, for logs."""
    principal: Principal | None = None
    body: bytes = b""
    log: dict[str, object] = field(default_factory=dict[str, object])
    """Fields that a handler adds to the access line (`job_id`, `engine_id`, `attempt`)."""
    route: "Route | None" = None
    """The row of the route table that matched; None before routing and for an unknown path."""
    link: ClientLink | None = None
    """Ends a long poll early; None (a request made in a test) is a client that stays."""
    recheck: "Callable[[Request], bool] | None" = None
    """Checks the key of a long-lived request again; see `is_still_authorized`."""


def is_still_authorized(request: Request) -> bool:
    """Whether the key of a request would be accepted now: it may have been revoked or expired."""
    return request.recheck is None or request.recheck(request)


@dataclass(slots=True)
class Response:
    """One reply. A `bytes` body is sent with its length, an iterator chunked, until it ends."""

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content_length: int | None = None
    """Length in bytes of an iterator body, if known."""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Instead of a reply: hand the connection over to another protocol (a websocket).

    `run` gets a stream that first yields the request's head again, then whatever follows on the
    wire, so that it suits a library that wants to read the opening handshake itself. The connection
    is closed when `run` returns; `run` is cancelled at the drain's deadline.
    """

    run: "Callable[[trio.abc.Stream], Awaitable[None]]"


Reply = Response | Upgrade
Handler = Callable[[Request], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the route table.

    `pattern` is a path with `{name}` for one segment and, at the end only, `{name...}` for the
    rest. `role` is the role that the caller's key must have (`public`: no key needed).
    `content_types` are those that a body may have (`*/*`: any); an absent Content-Type counts as the
    first. `body_limit_bytes` limits a `whole` body; None is the edge's own limit (`EdgeLimits`).
    """

    method: str
    pattern: str
    handler: Handler
    role: Role = "admin"
    body: BodyMode = "none"
    body_limit_bytes: int | None = None
    content_types: tuple[str, ...] = ("application/json",)
    summary: str = ""
    doc: Doc | None = None
    """What it accepts and answers, for `/openapi.json`; a plugin's route may omit it."""
