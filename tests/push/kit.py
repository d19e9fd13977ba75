"""Provide an engine's end of a websocket for the push tests.

`Wall` connects engines to an in-memory daemon with trio-websocket's client; `raw_socket` opens a
websocket by hand, for frames and silences that no library would produce.
"""

from typing import Any

import msgspec
import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from distconvd.model.push import SUBPROTOCOL
from distconvd.testing.daemon import KEY, Daemon

HANDSHAKE = {
    "host": "daemon",
    "x-api-key": KEY,
    "connection": "keep-alive, Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    "sec-websocket-protocol": f"v0.other, {SUBPROTOCOL}",
}


class Engine:
    """One engine and its open websocket."""

    def __init__(self, engine_id: str, socket: WebSocketConnection) -> None:
        self.engine_id = engine_id
        self.socket = socket
        self._last_id = 0
        self._put_by: list[dict[str, Any]] = []

    async def say(self, kind: str, body: object = None, **fields: Any) -> int:
        """Send a message; return its id."""
        self._last_id += 1
        message = {"type": kind, "id": self._last_id, "body": body or {}, **fields}
        await self.socket.send_message(msgspec.json.encode(message).decode())
        return self._last_id

    async def receive(self) -> dict[str, Any]:
        """Return the next message."""
        if self._put_by:
            return self._put_by.pop(0)
        message: dict[str, Any] = msgspec.json.decode(await self.socket.get_message())
        return message

    async def ask(self, kind: str, body: object = None, **fields: Any) -> dict[str, Any]:
        """Send a message; return its ack. Messages that come before it are returned later."""
        number = await self.say(kind, body, **fields)
        before: list[dict[str, Any]] = []
        while (message := await self.receive())["type"] != "ack":
            before.append(message)
        self._put_by = before
        assert message["id"] == number, message
        return message

    async def beat(self, **fields: Any) -> dict[str, Any]:
        """Send a heartbeat of an idle engine with a benchmark; return the reply."""
        fields = {"status": "idle", "benchmark_time": 10.0, **fields}
        ack = await self.ask("heartbeat", {"engine_id": self.engine_id, **fields})
        body: dict[str, Any] = ack["body"]
        return body

    async def job(self) -> dict[str, Any]:
        """Return the job of the next message, which must be an assignment."""
        message = await self.receive()
        assert message["type"] == "assigned", message
        job: dict[str, Any] = message["job"]
        return job

    async def end(self) -> tuple[int, str | None]:
        """Return code and reason of the close; no message may come before it."""
        with pytest.raises(ConnectionClosed) as caught:
            await self.socket.get_message()
        end = caught.value.reason
        assert end is not None
        return end.code, end.reason

    async def is_silent(self) -> bool:
        """Whether no message comes until all tasks are blocked."""
        await wait_all_tasks_blocked()
        with trio.move_on_after(0):
            self._put_by.append(msgspec.json.decode(await self.socket.get_message()))
        return not self._put_by


class Wall:
    """The sockets by which engines connect to a daemon."""

    def __init__(self, daemon: Daemon, nursery: trio.Nursery) -> None:
        self.daemon = daemon
        self._nursery = nursery
        self._streams: list[trio.abc.Stream] = []

    async def hang_up(self) -> None:
        """Drop every connection without a close frame."""
        for stream in self._streams:
            await trio.aclose_forcefully(stream)

    async def plug(self, engine_id: str = "e1", *, key: str = KEY, **options: Any) -> Engine:
        """Connect an engine that has not sent anything yet."""
        stream = await self.daemon.connect()
        self._streams.append(stream)
        socket = await wrap_client_stream(
            self._nursery,
            stream,  # type: ignore[arg-type] # any stream will do
            "daemon",
            f"/engines/{engine_id}/ws",
            subprotocols=[SUBPROTOCOL],
            extra_headers=[(b"X-API-Key", key.encode())],
            **options,
        )
        return Engine(engine_id, socket)

    async def ready(self, engine_id: str = "e1", **fields: Any) -> Engine:
        """Connect an idle engine."""
        engine = await self.plug(engine_id)
        await engine.beat(**fields)
        return engine


def handshake(engine_id: str) -> bytes:
    """Return the request that opens a websocket."""
    lines = [f"GET /engines/{engine_id}/ws HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in HANDSHAKE.items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def raw_socket(
    daemon: Daemon,
    engine_id: str = "e1",
    pair: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
) -> trio.abc.Stream:
    """Return a stream on which the daemon has just accepted a websocket."""
    stream, theirs = pair or memory_stream_pair()
    await daemon._connections.send(theirs)
    await stream.send_all(handshake(engine_id))
    reply = bytearray()
    while not reply.endswith(b"\r\n\r\n"):
        reply += await stream.receive_some(1)
    assert reply.startswith(b"HTTP/1.1 101 "), reply
    return stream


def frame(opcode: int, payload: bytes, *, first: int = 0x80) -> bytes:
    """Return one masked frame, as a client must send it."""
    length = len(payload)
    size = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
    return bytes([first | opcode]) + size + bytes(4) + payload


async def lockstep_socket(daemon: Daemon, engine_id: str = "e1") -> trio.abc.Stream:
    """Return a stream as `raw_socket` does, but one on which sending waits until it is read."""
    ours, theirs = lockstep_stream_pair()
    return await raw_socket(daemon, engine_id, (ours, theirs))


async def read_until_end(stream: trio.abc.Stream) -> bytes:
    """Return all bytes until the stream ends."""
    said = bytearray()
    async for data in stream:
        said += data
    return bytes(said)
