"""Serve one connection from its first byte to its last: the loop of requests and replies.

A connection is one task and, except for long polls and late bodies, one cancel scope, whose
deadline is moved (`edge.deadlines`). The loop is

    head -> app -> reply -> rest of the body -> next head

and it ends with a close as soon as the two sides can no longer agree where the next request
begins. What the client receives when something goes wrong:

- silence before a head: the connection is closed without a reply;
- a head that began and does not end in time: 408;
- bad HTTP: a problem document, then the close;
- the client goes away, at any point: nothing; the daemon logs one debug line;
- a reply sent while the client still sends is followed by a short lingering close, because closing
  immediately would reset the connection, and the client would lose the reply.
"""

import logging
import time

import h11
import trio

from distconvd.edge.access import Exchange, ids_of, log_access
from distconvd.edge.admission import Guests
from distconvd.edge.app import AppSlot
from distconvd.edge.body import RequestBody
from distconvd.edge.connection_io import ConnectionIO, linger
from distconvd.edge.deadlines import Deadlines
from distconvd.edge.drain import Drain
from distconvd.edge.http import ClientDisconnected, Reply, Request, Response, Upgrade
from distconvd.edge.limits import EdgeLimits
from distconvd.edge.long_poll import LongPoll
from distconvd.edge.problems import Crash, problem
from distconvd.edge.reply import send_reply
from distconvd.edge.request_head import (
    check_head,
    check_size,
    is_last,
    key_of,
    new_request_id,
    read_headers,
    request_id_for,
)
from distconvd.edge.upgrade import PrefixedStream, replay
from distconvd.errors import DistconvError, RequestTimeout, Unavailable

log = logging.getLogger("distconvd.edge")


async def serve_connection(
    stream: trio.abc.Stream,
    *,
    app_slot: AppSlot,
    limits: EdgeLimits,
    peer: str,
    drain: Drain,
    deadlines: Deadlines,
    guests: Guests,
    refusal: Unavailable | None = None,
) -> None:
    """Serve requests on a stream until it ends, then close it.

    With a `refusal`, which a newcomer gets when all places are taken, the first request must be made
    with a key; without one it is answered with the refusal, and the connection is closed.

    Error handling: raises only `Cancelled`; a fault in the edge itself is logged.

    Resource handling: the stream is always closed, gracefully unless cancelled.
    """
    connection = _Connection(stream, app_slot, limits, peer, drain, refusal)
    deadlines.add(connection.watch)
    scope = trio.CancelScope()
    guests.add(scope, connection.is_guest)
    try:
        with scope:
            await connection.run()
            await _close(stream, limits.linger_s)
        if scope.cancelled_caught:
            log.debug("client %s: its place was needed for another", peer)
    except Exception:
        log.exception("a connection failed", extra={"peer": peer})
    finally:
        deadlines.discard(connection.watch)
        guests.discard(scope)
        await trio.aclose_forcefully(stream)


async def _close(stream: trio.abc.Stream, patience_s: float) -> None:
    with trio.move_on_after(patience_s):
        await stream.aclose()


class _Connection:
    """The state that lasts from request to request."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        app_slot: AppSlot,
        limits: EdgeLimits,
        peer: str,
        drain: Drain,
        refusal: Unavailable | None,
    ) -> None:
        self._wire = ConnectionIO(stream, limits.head_bytes_max, limits.send_timeout_s)
        self.watch = self._wire.watch
        self._long_poll = LongPoll(self._wire, drain, limits.head_bytes_max)
        self._app_slot = app_slot
        self._limits = limits
        self._peer = peer
        self._drain = drain
        self._refusal = refusal
        self._request: Request | None = None
        self._is_known = False
        self._requests_left = limits.requests_per_connection_max
        self._in_head = False
        """A head has begun and not ended; when `watch` expires then, the reply is 408."""
        self._head_start_bytes = 0
        self._logged_bytes = 0

    def is_guest(self) -> bool:
        """Whether no request on it has been authorized, not even the one that is being answered."""
        now = self._request
        return not self._is_known and (now is None or now.principal is None)

    async def run(self) -> None:
        """Serve requests until either side ends, then linger if the client still sends."""
        watch = self.watch
        try:
            with watch.scope:
                watch.allow(self._limits.head_timeout_s)
                while await self._serve_one():
                    watch.allow(self._limits.idle_timeout_s)
            if watch.scope.cancelled_caught:
                await self._reply_timed_out()
            await self._linger()
        except ClientDisconnected as end:
            log.debug("client %s: %s", self._peer, end, extra={"peer": self._peer})

    async def _reply_timed_out(self) -> None:
        """Send 408 if a head had begun and a response is still possible."""
        if self._in_head:
            await self._refuse(RequestTimeout("The request's head did not arrive in time."))
        else:
            log.debug("client %s: idle, or too slow to read its reply", self._peer)

    async def _serve_one(self) -> bool:
        """Serve one request; return whether another may follow."""
        head = await self._read_head()
        self.watch.rest()
        if head is None or self.watch.scope.cancel_called:
            # The watch may have expired in the moment the head was complete: begin nothing then.
            return False
        started = time.perf_counter()
        request, body = self._make_request(head)
        reply = self._checked(head, request) or await self._answer(request)
        if isinstance(reply, Upgrade):
            await self._upgrade(reply, head, request, started)
            return False
        close = self._must_close(head, request, body)
        try:
            await self._reply(reply, request, close=close)
        finally:
            # Also for a reply that broke off: an event stream always ends that way.
            self._log_access(head, request, reply.status, started)
        return not close and await self._finish_request(body)

    async def _answer(self, request: Request) -> Reply:
        if self._refusal is not None and key_of(request.headers) is None:
            self._requests_left = 0
            return problem(self._refusal, request.request_id)
        self._request = request
        try:
            return await self._app_slot.app(request)
        finally:
            self._is_known = not self.is_guest()
            if self._is_known:
                self._refusal = None
            elif self._refusal is not None:
                self._requests_left = 0

    # ------------------------------------------------------------------------------- the head

    async def _read_head(self) -> h11.Request | None:
        """Return the next head, or None when no further one will come."""
        try:
            event = await self._next_head()
        except DistconvError as fault:
            await self._refuse(fault)
            return None
        self._in_head = False
        return event if isinstance(event, h11.Request) else None  # or ConnectionClosed

    async def _next_head(self) -> object:
        wire = self._wire
        waiting = wire.machine.trailing_data[0]
        self._head_start_bytes = wire.received_bytes - len(waiting)
        if not waiting:
            await self._wait_for_request()
        self._in_head = True
        event = wire.next_event()
        if event is h11.NEED_DATA:
            self.watch.allow(self._limits.head_timeout_s)
        while event is h11.NEED_DATA:
            await wire.receive()
            event = wire.next_event()
        return event

    async def _wait_for_request(self) -> None:
        """Wait for the first bytes of a request; only during this wait a drain ends the connection."""
        scope = self.watch.scope
        self._drain.add(scope)
        try:
            await self._wire.receive()
        finally:
            self._drain.discard(scope)

    def _make_request(self, head: h11.Request) -> tuple[Request, RequestBody]:
        headers = read_headers(head)
        body = RequestBody(self._wire, self._limits, headers)
        request = Request(
            method=head.method.decode("ascii"),
            path=head.target.decode("ascii"),
            query={},
            headers=headers,
            params={},
            reader=body,
            request_id=request_id_for(headers),
            peer=self._peer,
            link=self._long_poll,
        )
        return request, body

    def _checked(self, head: h11.Request, request: Request) -> Response | None:
        """Return the error reply to a head that h11 accepts and we do not, else None."""
        try:
            check_head(head, request.headers)
            if self._wire.received_bytes - self._head_start_bytes > self._limits.head_bytes_max:
                check_size(head, self._limits.head_bytes_max)
        except DistconvError as fault:
            self._requests_left = 0
            return problem(fault, request.request_id)
        return None

    # ------------------------------------------------------------------------------ the reply

    async def _reply(self, response: Response, request: Request, *, close: bool) -> None:
        try:
            await self._send(response, request, close=close)
        except ClientDisconnected:
            raise
        except Exception:
            log.exception("a reply could not be sent", extra=ids_of(request))
            if self._wire.reply == "none":
                response = problem(Crash(request.request_id), request.request_id)
                await self._send(response, request, close=close)
            # Else the head has been sent: only closing shows the client that the reply is cut.

    async def _send(self, response: Response, request: Request, *, close: bool) -> None:
        head_only = request.method == "HEAD"
        await send_reply(self._wire, response, request.request_id, close=close, head_only=head_only)

    def _must_close(self, head: h11.Request, request: Request, body: RequestBody) -> bool:
        """Decide, before a reply is sent, whether it is the last one on this connection."""
        self._requests_left -= 1
        if self._requests_left <= 0 or self._drain.started or is_last(head, request.headers):
            return True
        try:
            return not (body.discard_nowait() or body.may_discard)
        except (DistconvError, ClientDisconnected):
            return True  # what follows the request can no longer be parsed

    async def _finish_request(self, body: RequestBody) -> bool:
        """Discard the rest of the request; return whether the next one may begin."""
        wire = self._wire
        if wire.reply != "sent":
            return False
        try:
            await body.discard_rest()
        except DistconvError:
            return False  # the reply has been sent already; a second one is not possible
        if not wire.is_request_read:
            return False
        wire.next_request()
        return True

    async def _refuse(self, fault: DistconvError) -> None:
        """Reply with a problem to a head that never became a request; this is the last reply."""
        self._in_head = False
        wire = self._wire
        request_id = new_request_id()
        response = problem(fault, request_id)
        with trio.move_on_after(self._limits.send_timeout_s):
            await send_reply(wire, response, request_id, close=True, head_only=False)
        exchange = Exchange("-", "-", None, response.status, wire.sent_bytes, 0, self._peer, None)
        log_access(exchange, request_id, self._app_slot.app.observers)

    def _log_access(self, head: h11.Request, request: Request, status: int, started: float) -> None:
        wire = self._wire
        exchange = Exchange(
            method=request.method,
            path=head.target.decode("ascii").partition("?")[0],
            route=request.route,
            status=status,
            bytes_sent=wire.sent_bytes - self._logged_bytes,
            duration_s=time.perf_counter() - started,
            peer=request.peer,
            request=request,
        )
        self._logged_bytes = wire.sent_bytes
        log_access(exchange, request.request_id, self._app_slot.app.observers)

    # -------------------------------------------------------------------------------- the end

    async def _upgrade(
        self, upgrade: Upgrade, head: h11.Request, request: Request, started: float
    ) -> None:
        """Hand the stream over until the other protocol has finished with it."""
        wire = self._wire
        stream = PrefixedStream(replay(head, wire.machine.trailing_data[0]), wire.stream)
        wire.input_ended = True
        try:
            await upgrade.run(stream)
        except Exception:
            log.exception("an upgraded connection failed", extra=ids_of(request))
        finally:
            self._log_access(head, request, 101, started)

    async def _linger(self) -> None:
        """Close our half and read for a while, so that a client that still sends gets the reply.

        A client may have sent more before it learnt that this reply was the last. TLS streams have no
        half to close: there the client would wait for our close and we for the client's, so one that
        has sent its whole request is closed immediately.
        """
        wire = self._wire
        state = wire.machine.their_state
        all_sent = state in (h11.IDLE, h11.CLOSED) or (
            wire.is_request_read and not isinstance(wire.stream, trio.abc.HalfCloseableStream)
        )
        if not (wire.input_ended or all_sent):
            with trio.move_on_after(self._limits.linger_s):
                await linger(wire.stream, self._limits.linger_bytes_max)
