"""Relay a remote source to ffmpeg through a loopback port, and nothing else.

ffmpeg could open the URL by itself, but then nothing would compare one of its requests with the
next: of a file that is replaced in mid-encode it would read half of each. Through the relay,
`RangeReader` reads every byte and checks that it is the same file; what it finds is kept in
`fault`, since ffmpeg only sees a connection that ends early. The API key, redirects and
certificates stay out of ffmpeg, too.

Nothing is stored: a piece is passed on before the next is requested. The path is a secret, because
other users of the machine can reach the port.
"""

import re
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import trio

from distconv_engine.failures import JobFailure
from distconv_engine.tasks import open_tasks
from distconv_engine.transfer.range_reader import NotStreamable, RangeReader

_HEAD_BYTES_MAX = 16_384
_RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d*)\r\n", re.IGNORECASE)


class Relay:
    """The relay. `url` is for ffmpeg; `fault` is what was found wrong with the source."""

    def __init__(self, reader: RangeReader, port: int) -> None:
        self.fault: JobFailure | None = None
        self._reader = reader
        self._path = f"/{secrets.token_hex(16)}"
        self.url = f"http://127.0.0.1:{port}{self._path}"

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one request, then close."""
        async with stream:
            try:
                await self._answer(stream)
            except JobFailure as failure:
                self.fault = self.fault or failure
            except trio.BrokenResourceError:
                pass  # ffmpeg has read enough of this part: it seeks, or it has ended

    async def _answer(self, stream: trio.SocketStream) -> None:
        head = await _head_of(stream)
        if not head.startswith(f"GET {self._path} ".encode()):
            await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        size = self._reader.size_bytes
        found = _RANGE.search(head)
        start = int(found[1]) if found else 0
        last = min(int(found[2]), size - 1) if found and found[2] else size - 1
        if start > last:
            reply = f"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{size}\r\n"
            await stream.send_all(reply.encode() + b"Content-Length: 0\r\n\r\n")
            return
        await stream.send_all(_reply_head(start, last, size))
        await self._reader.copy(start, last + 1, stream.send_all)


def _reply_head(start: int, last: int, size: int) -> bytes:
    return (
        "HTTP/1.1 206 Partial Content\r\n"
        f"Content-Range: bytes {start}-{last}/{size}\r\n"
        f"Content-Length: {last + 1 - start}\r\n"
        "Accept-Ranges: bytes\r\nContent-Type: application/octet-stream\r\n"
        "Connection: close\r\n\r\n"
    ).encode()


async def _head_of(stream: trio.SocketStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES_MAX:
        piece = await stream.receive_some()
        if not piece:
            break
        head += piece
    return head


@asynccontextmanager
async def open_relay(reader: RangeReader) -> AsyncGenerator[Relay]:
    """Open the relay and yield it; all its connections are closed when the block is left.

    Error handling: a fault that the relay found in the source replaces what the block raises, since
    it is the cause; and the block cannot succeed on a source that had a fault.
    """
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    relay = Relay(reader, listeners[0].socket.getsockname()[1])
    try:
        async with open_tasks() as tasks:
            tasks.start(partial(trio.serve_listeners, relay.serve, listeners))
            yield relay
            tasks.cancel()
    except (JobFailure, NotStreamable) as failure:
        if relay.fault is not None:
            raise relay.fault from failure
        raise
    if relay.fault is not None:
        raise relay.fault
