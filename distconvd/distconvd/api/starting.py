"""Answer requests before the daemon has started: it is alive, it is not ready, and why.

The listeners are open already, so that clients get this answer instead of a refused connection. Every
other request, whatever its key, is 503 with `Retry-After`, because jobs and routes are not known yet.
"""

from typing import NoReturn

from distconvd.api.operations import Readiness, readiness_reply
from distconvd.edge.app import App
from distconvd.edge.http import Principal, Request, Response, Route
from distconvd.errors import Unavailable

REASON = "the daemon is reading its state and starting its plugins"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def starting_app() -> App:
    """Return the app that answers until the daemon's own replaces it."""
    others = [
        Route(method, pattern, _refuse, "public")
        for method in _METHODS
        for pattern in ("/", "/{path...}")
    ]
    routes = [
        Route("GET", "/livez", _alive, "public"),
        Route("GET", "/readyz", _ready, "public"),
    ]
    return App([*routes, *others], _never)


async def _alive(request: Request) -> Response:
    return Response(200, b"OK", "text/plain")


async def _ready(request: Request) -> Response:
    return readiness_reply(Readiness({"starting": REASON}))


async def _refuse(request: Request) -> NoReturn:
    raise Unavailable(f"Not ready: {REASON}; try again.")


def _never(request: Request, route: Route) -> Principal:
    raise RuntimeError("every route of a starting daemon is public")
