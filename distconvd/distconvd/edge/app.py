"""Process a request between its head and its reply, in a fixed order.

Route (404, 405, OPTIONS), authenticate (401, 403), check the body's type (415), read the body
(408, 413, 400), call the handler. So an unknown path needs no key, a missing key costs no upload,
and a handler sees only complete requests of an accepted type from an authorized caller. Every
error becomes a problem document here.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from distconvd.edge.access import Observer, ids_of
from distconvd.edge.cors import NO_ORIGINS, Cors
from distconvd.edge.http import (
    ClientDisconnected,
    Principal,
    Reply,
    Request,
    Response,
    Route,
)
from distconvd.edge.problems import Crash, problem
from distconvd.edge.request_head import NO_PROXIES, TrustedProxies
from distconvd.edge.router import Router
from distconvd.edge.target import decode_query, split_target
from distconvd.errors import DistconvError, UnsupportedMediaType
from distconvd.faults import unwrap_group

log = logging.getLogger("distconvd.edge")

Authenticate = Callable[[Request, Route], Awaitable[Principal] | Principal]


class App:
    """The routes of a daemon and who may call them.

    Args:
        routes: the whole route table; see `Router` for what makes it raise.
        authenticate: returns who is calling, or raises `Unauthorized` or `Forbidden`. It sees the
            request before its body is read, and is not called for routes with the role `public`.
        observers: called with each exchange after its reply (metrics).
        cors: whose web pages may call.
        proxies: those whose word on a client's address counts.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        authenticate: Authenticate,
        *,
        observers: Sequence[Observer] = (),
        cors: Cors = NO_ORIGINS,
        proxies: TrustedProxies = NO_PROXIES,
    ) -> None:
        self._router = Router(routes)
        self._authenticate = authenticate
        self._cors = cors
        self._proxies = proxies
        self.observers = observers

    async def __call__(self, request: Request) -> Reply:
        """Answer a request whose `path` is still the target as it was sent.

        Raises:
            ClientDisconnected: the client went away during its body. Nothing else is raised,
                whatever a handler does.
        """
        try:
            reply = await self._answer(request)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a handler raises is one 500
            reply = _reply_to_error(unwrap_group(error), request)
        return self._cors.with_headers(reply, request)

    async def _answer(self, request: Request) -> Reply:
        request.peer = self._proxies.client_of(request.headers, request.peer)
        path, query = split_target(request.path)
        if request.method == "OPTIONS":
            return Response(204, headers={"Allow": self._router.allowed(path)})
        route, request.params, request.path = self._router.match(request.method, path)
        request.route = route
        if query:
            request.query = decode_query(query)
        if route.role != "public":
            principal = self._authenticate(request, route)
            if not isinstance(principal, Principal):
                principal = await principal
            request.principal = principal
        if route.body != "none":
            _check_type(request, route)
        if route.body == "whole":
            request.body = await request.reader.read_whole(route.body_limit_bytes)
        return await route.handler(request)


def _check_type(request: Request, route: Route) -> None:
    """Raise `UnsupportedMediaType` for a body whose Content-Type the route does not accept."""
    headers = request.headers
    announced = headers.get("content-type")
    if announced is None or "*/*" in route.content_types or not _has_body(request):
        return
    media_type = announced.partition(";")[0].strip().lower()
    if media_type in route.content_types:
        return
    raise UnsupportedMediaType(
        f"The Content-Type is {media_type!r}, but this path accepts only "
        f"{' or '.join(route.content_types)}: with curl, add"
        f" -H 'Content-Type: {route.content_types[0]}'.",
        headers={"Accept": ", ".join(route.content_types)},
    )


def _has_body(request: Request) -> bool:
    headers = request.headers
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _reply_to_error(error: BaseException, request: Request) -> Response:
    if isinstance(error, DistconvError):
        return problem(error, request.request_id)
    if isinstance(error, ClientDisconnected):
        raise error
    log.error(
        "%s %s failed (request id %s)",
        request.method,
        request.path,
        request.request_id,
        exc_info=error,
        extra=ids_of(request),
    )
    return problem(Crash(request.request_id), request.request_id)


class AppSlot:
    """A mutable reference to the app that answers.

    A daemon listens before it has read its state, so that a load balancer learns why it is not ready
    instead of having its connection refused. Connections read the slot at each request, so even those
    opened before the daemon was ready are served by the real routes once these exist.

    Args:
        app: the first one.
    """

    def __init__(self, app: App) -> None:
        self.app = app
