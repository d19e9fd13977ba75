"""Send the actors' HTTP requests over memory streams, and keep a transcript of all exchanges.

It is as cheap as a client can be (2,000 engines share one core with the daemon under test) and
distinguishes what an audit must: a complete reply, and `Gone`, after which nobody knows whether the
request was carried out. The transcript is a digest of all exchanges in their order: equal digests
mean equal runs.
"""

import hashlib
import re

import msgspec
import trio

from distconvd.testing.daemon import KEY, Daemon

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_REQUEST_ID = re.compile(rb'"request_id": ?"[^"]*"')
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


class Gone(Exception):
    """There was no complete reply."""


class Wire:
    """The client that all actors share; connections are kept and shared.

    Attributes:
        daemon: the daemon to call; None while it is down.
        calls: how many exchanges were begun.
    """

    def __init__(self) -> None:
        self.daemon: Daemon | None = None
        self.calls = 0
        self._idle: list[trio.abc.Stream] = []
        self._digest = hashlib.blake2b(digest_size=12)

    @property
    def transcript(self) -> str:
        """The digest of all exchanges so far."""
        return self._digest.hexdigest()

    def hang_up(self) -> None:
        """Forget all kept connections: their daemon is gone."""
        self._idle.clear()

    async def call(
        self, method: str, path: str, body: object = None, headers: str = ""
    ) -> tuple[int, bytes]:
        """Return (status, body) of one exchange; raises `Gone`.

        `headers` are whole lines, each with its CRLF; bytes as `body` are sent as they are.
        """
        raw = b"" if body is None else body if isinstance(body, bytes) else encode(body)
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: d\r\nX-API-Key: {KEY}\r\n{headers}"
            f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        )
        return await self.exchange(head.encode() + raw)

    async def exchange(self, data: bytes) -> tuple[int, bytes]:
        """Send bytes that should be one request; return (status, body); raises `Gone`."""
        self.calls += 1
        status, body = 0, b""
        try:
            stream = self._idle.pop() if self._idle else await self._connect()
            status, body, is_kept = await _exchange(stream, data)
            if is_kept:
                self._idle.append(stream)
            else:
                await trio.aclose_forcefully(stream)
        except _BROKEN as error:
            raise Gone from error
        finally:
            note = f"{trio.current_time():.6f} {status} {len(data)} "
            self._digest.update(note.encode() + data + _REQUEST_ID.sub(b"", body))
        return status, body

    async def abandon(self, method: str, path: str, body: object) -> None:
        """Send a request and hang up without waiting: it may be carried out or not."""
        raw = encode(body)
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: d\r\nX-API-Key: {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        )
        try:
            stream = await self._connect()
            await stream.send_all(head.encode() + raw)
            await trio.aclose_forcefully(stream)
        except (*_BROKEN, Gone):
            return

    async def _connect(self) -> trio.abc.Stream:
        if self.daemon is None:
            await trio.lowlevel.checkpoint()
            raise Gone
        return await self.daemon.connect()


def encode(body: object) -> bytes:
    """Return a body as JSON."""
    return msgspec.json.encode(body)


async def _exchange(stream: trio.abc.Stream, data: bytes) -> tuple[int, bytes, bool]:
    """Return (status, body, whether the connection can be used again)."""
    try:
        await stream.send_all(data)
        buffer = b""
        while (ends := buffer.find(b"\r\n\r\n")) < 0 or buffer.startswith(b"HTTP/1.1 100"):
            if ends >= 0:
                buffer = buffer[ends + 4 :]
                continue
            buffer += await _some(stream)
        head = buffer[:ends]
        status = int(head[9:12])
        found = _LENGTH.search(head)
        length = int(found.group(1)) if found and status not in (204, 304) else 0
        body = buffer[ends + 4 :]
        while len(body) < length:
            body += await _some(stream)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return status, body, not _CLOSE.search(head)


async def _some(stream: trio.abc.Stream) -> bytes:
    data = bytes(await stream.receive_some())
    if not data:
        raise trio.BrokenResourceError("the daemon hung up")
    return data
