"""Replay a request's head to the protocol that takes over its connection.

h11 has consumed the opening handshake, but a websocket library wants to read it. It gets a head
that is written again from h11's parsed headers and is therefore well-formed.
"""

import h11
import trio


def replay(request: h11.Request, trailing: bytes) -> bytes:
    """Return the request's head as it could have been sent, and the bytes that came after it."""
    lines = [request.method + b" " + request.target + b" HTTP/" + request.http_version]
    lines += [name + b": " + value for name, value in request.headers.raw_items()]
    return b"\r\n".join(lines) + b"\r\n\r\n" + trailing


class PrefixedStream(trio.abc.Stream):
    """A stream that yields some bytes before those of the underlying stream."""

    def __init__(self, prefix: bytes, stream: trio.abc.Stream) -> None:
        self._prefix = prefix
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive from the prefix until it is used up."""
        if not self._prefix:
            return await self._stream.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        data = self._prefix[:max_bytes]
        self._prefix = self._prefix[len(data) :]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send to the underlying stream."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for the underlying stream."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the underlying stream."""
        await self._stream.aclose()
