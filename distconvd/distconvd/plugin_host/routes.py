"""Isolate a plugin's routes: a failure fails one request, and log and reply name the plugin.

A reply is checked against its type before any of it is sent: afterwards it could only be cut off.
"""

import dataclasses
import logging
from http import HTTPStatus

from distconvd.edge.access import ids_of
from distconvd.edge.http import ClientDisconnected, Reply, Request, Response, Route, Upgrade
from distconvd.errors import DistconvError, PluginFailed
from distconvd.faults import reraise_if_cancelled, unwrap_group

log = logging.getLogger("distconvd.plugins")


def isolated(route: Route, plugin: str) -> Route:
    """Return a route that does the same, with its failures attributed to `plugin`."""

    async def handler(request: Request) -> Reply:
        try:
            return _checked(await route.handler(request))
        except BaseException as error:
            reraise_if_cancelled(error)
            leaf = unwrap_group(error)
            if isinstance(leaf, DistconvError | ClientDisconnected):
                raise
            log.exception(
                "%s %s of plugin %s failed", route.method, route.pattern, plugin,
                extra=ids_of(request),
            )  # fmt: skip
            raise PluginFailed(
                f"The plugin {plugin!r} failed on this request; the daemon's log has the details,"
                f" under request id {request.request_id}."
            ) from error

    return dataclasses.replace(route, handler=handler)


def _checked(reply: object) -> Reply:
    """Return a handler's reply if it can be sent; else raises `TypeError` or `ValueError`."""
    if isinstance(reply, Upgrade):
        return reply
    if not isinstance(reply, Response):
        raise TypeError(f"it returned {reply!r:.80} instead of a Response")
    body: object = reply.body
    if not (isinstance(body, bytes) or hasattr(body, "__aiter__")):
        raise TypeError(f"the body is {body!r:.80}; expected bytes or an async iterator of bytes")
    HTTPStatus(reply.status)  # raises ValueError for an invalid status
    types: list[object] = [reply.content_type, *reply.headers, *reply.headers.values()]
    if not all(isinstance(text, str) for text in types):
        raise TypeError(f"the content type and the headers are {types!r:.200}, not all str")
    return reply
