"""Accept connections: count them, refuse those over the limit, and drain.

There are two nurseries: accepting is cancelled first, while connections continue in the other until
they have finished or the drain's deadline has passed. Running out of file descriptors, or reaching
the connection limit, does not stop the server: it logs the condition and waits until it is over.
"""

import errno
import logging
from collections.abc import Sequence
from typing import cast

import trio

from distconvd.edge.access import Exchange, log_access
from distconvd.edge.admission import Guests, affordable_connections
from distconvd.edge.app import App, AppSlot
from distconvd.edge.connection import serve_connection
from distconvd.edge.connection_io import linger
from distconvd.edge.deadlines import Deadlines, keep_deadlines
from distconvd.edge.drain import Drain
from distconvd.edge.limits import EdgeLimits
from distconvd.edge.listeners import name_of
from distconvd.edge.problems import problem
from distconvd.edge.request_head import new_request_id
from distconvd.errors import Unavailable

log = logging.getLogger("distconvd.edge")

Listener = trio.abc.Listener[trio.abc.Stream]

ACCEPT_PAUSE_S = 0.1
REFUSALS_MAX = 64
REFUSAL_S = 1.0
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Server:
    """A running server; created by `serve`.

    Args:
        app: answers the requests.
        limits: of each connection, and of their number.
    """

    def __init__(self, app: App, limits: EdgeLimits) -> None:
        self._app_slot = AppSlot(app)
        self._limits = limits
        self._drain = Drain()
        self._deadlines = Deadlines()
        self._guests = Guests()
        self._accepting = trio.CancelScope()
        self._serving = trio.CancelScope()
        self._all_closed = trio.Event()
        self._connections_max = limits.connections_max
        self._refusals = 0
        self.connections = 0
        """Open connections now."""

    def answer_with(self, app: App) -> None:
        """Let another app answer, starting with the next request of each connection."""
        self._app_slot.app = app

    def start_drain(self, grace_s: float) -> None:
        """Stop accepting, let requests in flight finish for up to `grace_s`, then cancel the rest.

        Idle connections are closed and long polls answered immediately, and every reply from now
        on says `Connection: close`.
        """
        self._accepting.cancel()
        self._drain.start()
        self._serving.deadline = trio.current_time() + grace_s

    async def drain(self, grace_s: float) -> None:
        """Call `start_drain`, and wait until every connection has ended."""
        self.start_drain(grace_s)
        await self._all_closed.wait()

    async def run(
        self,
        listeners: Sequence[Listener],
        task_status: trio.TaskStatus["Server"] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept and serve until drained or cancelled; closes the listeners."""
        self._connections_max = affordable_connections(self._limits.connections_max)
        try:
            await self._run(listeners, task_status)
        finally:
            self._all_closed.set()

    async def _run(
        self, listeners: Sequence[Listener], task_status: trio.TaskStatus["Server"]
    ) -> None:
        with self._serving:
            async with (
                keep_deadlines(self._limits, self._deadlines),
                trio.open_nursery() as connections,
            ):
                await self._accept(listeners, connections, task_status)
        if self._serving.cancelled_caught:
            log.warning("the drain has timed out: connections that were still open are closed")

    async def _accept(
        self,
        listeners: Sequence[Listener],
        connections: trio.Nursery,
        task_status: trio.TaskStatus["Server"],
    ) -> None:
        try:
            with self._accepting:
                async with trio.open_nursery() as acceptors:
                    for listener in listeners:
                        acceptors.start_soon(self._accept_from, listener, connections)
                    task_status.started(self)
        finally:
            for listener in listeners:
                await trio.aclose_forcefully(listener)

    async def _accept_from(self, listener: Listener, connections: trio.Nursery) -> None:
        exhausted = False
        while True:
            try:
                stream = await listener.accept()
            except OSError as fault:
                if not exhausted:
                    log.error("cannot accept new connections for now: %s", fault.strerror or fault)
                exhausted = fault.errno in _EXHAUSTED
                await trio.sleep(ACCEPT_PAUSE_S)
                continue
            if exhausted:
                log.info("connections are accepted again")
                exhausted = False
            self._admit(stream, connections)

    def _admit(self, stream: trio.abc.Stream, connections: trio.Nursery) -> None:
        """Serve a new connection if there is a place, or one whose holder has shown no key."""
        if self.connections < self._connections_max:
            self.connections += 1
            connections.start_soon(self._serve, stream, None)
        elif self._guests.close_oldest():
            self.connections += 1
            connections.start_soon(self._serve, stream, self._all_taken())
        else:
            connections.start_soon(self._refuse, stream)

    def _all_taken(self) -> Unavailable:
        return Unavailable(
            f"All {self._connections_max} connections that the daemon can serve at the same time "
            "are in use; try again."
        )

    async def _serve(self, stream: trio.abc.Stream, refusal: Unavailable | None) -> None:
        try:
            await serve_connection(
                stream,
                app_slot=self._app_slot,
                limits=self._limits,
                peer=peer_of(stream),
                drain=self._drain,
                deadlines=self._deadlines,
                guests=self._guests,
                refusal=refusal,
            )
        finally:
            self.connections -= 1

    async def _refuse(self, stream: trio.abc.Stream) -> None:
        """Send 503 to a client over the limit, unless too many are being refused already."""
        self._refusals += 1
        reply, exchange, request_id = self._refusal(stream)
        try:
            if self._refusals <= REFUSALS_MAX:
                with trio.move_on_after(REFUSAL_S):
                    await stream.send_all(reply)
                    await linger(stream, self._limits.head_bytes_max)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("client %s: disconnected before the refusal was sent", exchange.peer)
        finally:
            self._refusals -= 1
            await trio.aclose_forcefully(stream)
        log_access(exchange, request_id, self._app_slot.app.observers)

    def _refusal(self, stream: trio.abc.Stream) -> tuple[bytes, Exchange, str]:
        request_id = new_request_id()
        error = self._all_taken()
        response = problem(error, request_id)
        assert isinstance(response.body, bytes)
        head = (
            f"HTTP/1.1 503 {error.title}\r\nContent-Type: {response.content_type}\r\n"
            f"Content-Length: {len(response.body)}\r\nRetry-After: {error.headers['Retry-After']}"
            f"\r\nX-Request-Id: {request_id}\r\nConnection: close\r\n\r\n"
        )
        reply = head.encode("ascii") + response.body
        exchange = Exchange("-", "-", None, 503, len(reply), 0, peer_of(stream), None)
        return reply, exchange, request_id


async def serve(
    listeners: Sequence[Listener],
    app: App,
    limits: EdgeLimits,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an app on some listeners until drained or cancelled.

    `await nursery.start(serve, ...)` returns the `Server`, whose `drain` ends it; clients can
    connect as soon as it returns.

    Resource handling: listeners and connections are closed when this returns or raises.
    """
    await Server(app, limits).run(listeners, task_status)


def peer_of(stream: trio.abc.Stream) -> str:
    """Return the peer's address, or `-` if it is unknown."""
    if isinstance(stream, trio.SSLStream):
        stream = cast("trio.SSLStream[trio.abc.Stream]", stream).transport_stream
    if not isinstance(stream, trio.SocketStream):
        return "-"
    try:
        return name_of(stream.socket.getpeername())
    except OSError:
        return "-"  # it has gone already
