"""Open a websocket to the daemon; the only engine module that uses trio-websocket.

Error handling: whatever the network, a proxy or the daemon does becomes `NotSupported` (there is no
websocket at this address) or `Closed` (there was one, or there may be one later).
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import quote

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    open_websocket_url,
)
from wsproto.utilities import ProtocolError

from distconv_engine.files import describe_fault
from distconvd.model.push import SUBPROTOCOL

MESSAGE_BYTES_MAX = 4 * 1_048_576
CONNECT_S = 10.0
DISCONNECT_S = 2.0
_LIBRARY = (
    HandshakeError,
    OSError,
    ProtocolError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)
_NOT_SUPPORTED = frozenset({400, 404, 405, 426, 501})


class NotSupported(Exception):
    """The daemon answers, but has no websocket for engines."""


class Closed(Exception):
    """The websocket is closed or could not be opened; `code` is the daemon's reason, or 0."""

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code


class EngineSocket(Protocol):
    """An open websocket. All methods raise `Closed` once it is closed."""

    async def receive(self) -> str:
        """Return the next message."""
        ...

    async def send(self, text: str) -> None:
        """Send one message; if this is cancelled, the socket is no longer usable."""
        ...

    async def ping(self) -> None:
        """Send a ping and wait for its pong."""
        ...


class WebSocket:
    """An `EngineSocket` of trio-websocket."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    async def receive(self) -> str:
        """Return the next message."""
        try:
            message = await self._connection.get_message()
        except ConnectionClosed as end:
            raise _closed(end) from None
        if isinstance(message, bytes):
            raise Closed("the daemon sent a binary message")
        return message

    async def send(self, text: str) -> None:
        """Send one message."""
        try:
            await self._connection.send_message(text)
        except ConnectionClosed as end:
            raise _closed(end) from None

    async def ping(self) -> None:
        """Send a ping and wait for its pong."""
        try:
            await self._connection.ping()
        except ConnectionClosed as end:
            raise _closed(end) from None


@asynccontextmanager
async def open_socket(
    server: str, engine_id: str, api_key: str | None
) -> AsyncGenerator[EngineSocket]:
    """Open the websocket of an engine for the length of the block.

    Raises `NotSupported` or `Closed`; the latter also for errors inside the library: push only
    saves latency and may never end an engine.
    """
    # http to ws, https to wss.
    url = "ws" + server.rstrip("/").removeprefix("http")
    url += f"/engines/{quote(engine_id, safe='')}/ws"
    headers = [(b"x-api-key", api_key.encode())] if api_key else []
    try:
        async with open_websocket_url(
            url,
            subprotocols=[SUBPROTOCOL],
            extra_headers=headers,
            max_message_size=MESSAGE_BYTES_MAX,
            connect_timeout=CONNECT_S,
            disconnect_timeout=DISCONNECT_S,
        ) as connection:
            yield WebSocket(connection)
    except ConnectionRejected as error:
        if error.status_code in _NOT_SUPPORTED:
            raise NotSupported(f"the daemon answered {error.status_code}") from error
        raise Closed(f"the daemon answered {error.status_code}") from error
    except ConnectionClosed as end:
        raise _closed(end) from None
    except _LIBRARY as error:
        raise Closed(describe_fault(error)) from error


def _closed(end: ConnectionClosed) -> Closed:
    if end.reason is None:
        return Closed("the connection broke")
    return Closed(f"{end.reason.code} {end.reason.reason or end.reason.name}", end.reason.code)
