"""Run one websocket over a stream with trio-websocket, and add what the library lacks.

No other module knows the library. What it lacks:

- It answers a malformed frame, or text that is not UTF-8, by closing the stream, without the close
  frame that says why (RFC 6455 section 7.1.7). So it gets a stream that it cannot really close, and
  the missing close frame is sent here.
- A ping that arrives while we are closing makes its reader raise, possibly before the close frame is
  sent. That ends only this connection, which was ending anyway; the frame is sent here, too.
- After a handshake that it rejects it would wait without end; `serve_socket` has a timeout.

Resource handling: the stream belongs to the caller, who closes it; no task outlives `serve_socket`.
"""

import logging
from collections.abc import Awaitable, Callable

import trio
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection, wrap_server_stream
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from distconvd.edge.connection_io import linger
from distconvd.model.push import (
    CLOSE_MALFORMED,
    CLOSE_TOO_BIG,
    CLOSE_UNREADABLE,
    SUBPROTOCOL,
)
from distconvd.push.limits import PushLimits

log = logging.getLogger("distconvd.push")

RECEIVE_BYTES = 16_384
REASON_BYTES = 123
"""Maximum length of a close frame's reason (RFC 6455 section 5.5)."""
_CLOSE = 0x88
_FAULTS = frozenset({CLOSE_MALFORMED, CLOSE_UNREADABLE, CLOSE_TOO_BIG})
"""Closing codes after which the engine may still be sending."""


class SocketClosed(Exception):
    """The connection has ended; either side may have ended it."""


class Socket:
    """An open websocket of an engine.

    Error handling: all methods but `close` raise `SocketClosed` once the connection has ended.
    """

    def __init__(self, connection: WebSocketConnection, wire: "_Wire", limits: PushLimits) -> None:
        self._connection = connection
        self._wire = wire
        self._limits = limits
        self.ending: tuple[int, str] | None = None
        """The arguments of `close`; None if it was not called."""

    @property
    def closed(self) -> CloseReason | None:
        """The library's reason for the end of the connection; None while it is open."""
        return self._connection.closed

    @property
    def last_received_s(self) -> float:
        """When the last byte arrived, in trio's time."""
        return self._wire.last_received_s

    async def receive(self) -> str | bytes:
        """Return the next message."""
        try:
            return await self._connection.get_message()
        except ConnectionClosed as end:
            raise SocketClosed(str(end.reason)) from None

    async def send(self, text: str) -> None:
        """Send one message. If cancelled in the middle, the stream cannot be used any more."""
        try:
            await self._connection.send_message(text)
        except ConnectionClosed as end:
            raise SocketClosed(str(end.reason)) from None

    async def ping(self) -> None:
        """Send a ping and wait for its pong."""
        try:
            await self._connection.ping()
        except ConnectionClosed as end:
            raise SocketClosed(str(end.reason)) from None

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame with the reason, and wait a moment for the engine's."""
        self.ending = (code, reason)
        with trio.move_on_after(self._limits.close_timeout_s):
            await self._connection.aclose(code, reason)


async def serve_socket(
    stream: trio.abc.Stream, limits: PushLimits, run_session: Callable[[Socket], Awaitable[None]]
) -> None:
    """Accept a websocket on a stream that begins with its handshake, and run a session on it."""
    wire = _Wire(stream)
    opened: list[Socket] = []
    try:
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(limits.handshake_timeout_s):
                request = await wrap_server_stream(
                    nursery,
                    wire,
                    max_message_size=limits.message_bytes_max,
                    receive_buffer_size=RECEIVE_BYTES,
                )
                connection = await request.accept(subprotocol=SUBPROTOCOL)
                opened.append(Socket(connection, wire, limits))
            for socket in opened:
                await run_session(socket)
            nursery.cancel_scope.cancel()
    except* (LocalProtocolError, RemoteProtocolError, ConnectionClosed) as group:
        log.debug("a websocket did not end properly: %s", group.exceptions)
    for socket in opened:
        await _send_missing_close(wire, _reason_to_send(socket), limits)


def _reason_to_send(socket: Socket) -> tuple[int, str] | None:
    """Return the code and reason that the engine should get: those of a fault that the library
    found, or the arguments of `close`."""
    end = socket.closed
    if end is not None and end.code in _FAULTS:
        return end.code, end.reason or ""
    return socket.ending


async def _send_missing_close(
    wire: "_Wire", reason: tuple[int, str] | None, limits: PushLimits
) -> None:
    """Send the close frame that the library has not sent, and let the engine read it."""
    if reason is None or (wire.has_sent_close and reason[0] not in _FAULTS):
        return
    with trio.move_on_after(limits.close_timeout_s):
        if not wire.has_sent_close:
            await wire.send_close(*reason)
        await linger(wire.stream, 4 * limits.message_bytes_max)


class _Wire(trio.abc.Stream):
    """The stream that the library gets, which it cannot really close; see the module."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.last_received_s = trio.current_time()
        self.has_sent_close = False
        self._closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive, and record when."""
        self._check()
        data = await self.stream.receive_some(max_bytes)
        self.last_received_s = trio.current_time()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send one frame: the library sends each with one call."""
        self._check()
        await self.stream.send_all(data)
        self.has_sent_close = self.has_sent_close or data[0] == _CLOSE

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for the underlying stream."""
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Reject further use; the underlying stream stays open for a missing close frame."""
        self._closed = True
        await trio.lowlevel.checkpoint()

    async def send_close(self, code: int, reason: str) -> None:
        """Send a close frame, whatever the library's state; only log it if the engine has gone."""
        reason_bytes = reason.encode()[:REASON_BYTES].decode(errors="ignore").encode()
        payload = code.to_bytes(2, "big") + reason_bytes
        try:
            await self.stream.send_all(bytes([_CLOSE, len(payload)]) + payload)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("an engine was gone before the close frame %d %s was sent", code, reason)

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
