"""One websocket over a stream: the only module that knows trio-websocket, and what it lacks.

- It answers a malformed frame or text that is no UTF-8 by closing the stream, without the close
  frame that says why (RFC 6455 section 7.1.7). So it gets a stream that it cannot really close, and
  what it has left unsaid is said here.
- A ping that arrives while we are closing makes its reader raise, perhaps before the close frame is
  out. That ends the connection, as it was about to, and nothing else; the frame is said here, too.
- After a handshake that it refuses it would wait for ever; `serve_socket` does not.

Resource handling: the stream belongs to the caller, who closes it; nothing here outlives
`serve_socket`.
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
"""What a close frame has room for (RFC 6455 section 5.5)."""
_CLOSE = 0x88
_FAULTS = frozenset({CLOSE_MALFORMED, CLOSE_UNREADABLE, CLOSE_TOO_BIG})
"""Closing codes with which the engine may be in the middle of sending."""


class SocketClosed(Exception):
    """The connection is over, by whomever."""


class Socket:
    """An open websocket of an engine. Error handling: all methods but `close` raise
    `SocketClosed` once it is over."""

    def __init__(self, connection: WebSocketConnection, wire: "_Wire", limits: PushLimits) -> None:
        self._connection = connection
        self._wire = wire
        self._limits = limits
        self.ending: tuple[int, str] | None = None
        """What `close` was called with."""

    @property
    def closed(self) -> CloseReason | None:
        """Why the library holds the connection to be over; None: it does not."""
        return self._connection.closed

    @property
    def last_received_s(self) -> float:
        """When the last byte came, in trio's time."""
        return self._wire.last_received_s

    async def receive(self) -> str | bytes:
        """Return the next message."""
        try:
            return await self._connection.get_message()
        except ConnectionClosed as end:
            raise SocketClosed(str(end.reason)) from None

    async def send(self, text: str) -> None:
        """Send one message. Cancelled in the middle, it leaves a stream that is good for nothing."""
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
        """Say why, and wait a moment for the engine to agree."""
        self.ending = (code, reason)
        with trio.move_on_after(self._limits.close_timeout_s):
            await self._connection.aclose(code, reason)


async def serve_socket(
    stream: trio.abc.Stream, limits: PushLimits, talk: Callable[[Socket], Awaitable[None]]
) -> None:
    """Accept a websocket on a stream that begins with its handshake, and hand it to `talk`."""
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
                await talk(socket)
            nursery.cancel_scope.cancel()
    except* (LocalProtocolError, RemoteProtocolError, ConnectionClosed) as group:
        log.debug("a websocket ended in disorder: %s", group.exceptions)
    for socket in opened:
        await _say_the_rest(wire, _owed(socket), limits)


def _owed(socket: Socket) -> tuple[int, str] | None:
    """Return what the engine should be told, if the library has not told it: a fault that it found,
    or what `close` was called with."""
    end = socket.closed
    if end is not None and end.code in _FAULTS:
        return end.code, end.reason or ""
    return socket.ending


async def _say_the_rest(wire: "_Wire", owed: tuple[int, str] | None, limits: PushLimits) -> None:
    """Send the close frame that is owed, and see that the engine can read it."""
    if owed is None or (wire.said_close and owed[0] not in _FAULTS):
        return
    with trio.move_on_after(limits.close_timeout_s):
        if not wire.said_close:
            await wire.say_close(*owed)
        await linger(wire.stream, 4 * limits.message_bytes_max)


class _Wire(trio.abc.Stream):
    """The stream that the library gets; see the module."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.last_received_s = trio.current_time()
        self.said_close = False
        self._closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive, and note when."""
        self._check()
        data = await self.stream.receive_some(max_bytes)
        self.last_received_s = trio.current_time()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send one frame: the library gives each to one call."""
        self._check()
        await self.stream.send_all(data)
        self.said_close = self.said_close or data[0] == _CLOSE

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for the stream beneath."""
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Refuse further use; the stream beneath stays open for what is left to say."""
        self._closed = True
        await trio.lowlevel.checkpoint()

    async def say_close(self, code: int, reason: str) -> None:
        """Send a close frame, whatever the library thinks of it; quietly if nobody hears it."""
        reason_bytes = reason.encode()[:REASON_BYTES].decode(errors="ignore").encode()
        payload = code.to_bytes(2, "big") + reason_bytes
        try:
            await self.stream.send_all(bytes([_CLOSE, len(payload)]) + payload)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("an engine was gone before it was told %d %s", code, reason)

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
