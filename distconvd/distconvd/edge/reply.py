"""A `Response` as bytes: its head, and how its body goes out.

h11 reads requests and keeps the state of the connection, but replies are written here: it is only
told that one began and ended. Its own writer checks each header twice with regular expressions
and makes three events of every reply, a quarter of the time of a small request; what is to be
checked in a reply, handlers' headers, is checked here once.

A reply that is all there leaves in one `send_all`; one that is still being made, piece by piece.
"""

import re
import time
from collections.abc import AsyncIterator, Mapping
from email.utils import formatdate
from functools import cache, lru_cache
from http import HTTPStatus

import h11

from distconvd.edge.connection_io import SEND_BYTES, ConnectionIO
from distconvd.edge.http import Response

_BODILESS = frozenset((204, 304))
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# Framing and what every reply has: two of these would let two readers see two different replies.
_RESERVED = frozenset(
    ("connection", "content-length", "content-type", "date", "transfer-encoding", "x-request-id")
)

# What h11 is told: a reply without a body is all that it has to know of any. Not 204, as it would
# take a success for consent to CONNECT.
_KEEPS = h11.Response(status_code=304, headers=[])
_CLOSES = h11.Response(status_code=304, headers=[(b"Connection", b"close")])
_END = h11.EndOfMessage()


class BadReply(Exception):
    """A handler's reply that cannot be sent as it is: a bug, told with a traceback."""


async def send_reply(
    wire: ConnectionIO, response: Response, request_id: str, *, close: bool, head_only: bool
) -> None:
    """Send a whole reply.

    Args:
        wire: where to; its machine is ready for a response.
        response: what to send; an iterator is closed in any case.
        request_id: told in `X-Request-Id`.
        close: say that it is the last one here (h11 adds its own reasons).
        head_only: the request was HEAD.

    Raises:
        ClientDisconnected: the client is gone.
        BadReply: a header is not fit to be sent (nothing has been sent then), or an iterator
            yields more or less than it announced.
        Exception: whatever an iterator raises.
    """
    body = response.body
    if not isinstance(body, bytes):
        await _send_iterated(wire, response, body, request_id, close=close, head_only=head_only)
        return
    length = len(body)
    if head_only and response.content_length is not None:
        length = response.content_length
    head = _head(response, request_id, f"Content-Length: {length}\r\n")
    closing = _begin(wire, close=close)
    wire.machine.send(_END)
    if head_only or response.status in _BODILESS:
        body = b""
    if len(body) > SEND_BYTES:
        await wire.send(head + closing)
        await wire.send(body)  # apart, as joining would copy what may be a listing of everything
    else:
        await wire.send(head + closing + body)


def _begin(wire: ConnectionIO, *, close: bool) -> bytes:
    """Tell h11 that a reply begins; returns the end of its head."""
    sent_head = wire.machine.send(_CLOSES if close else _KEEPS)
    return b"Connection: close\r\n\r\n" if b"close" in sent_head else b"\r\n"


def _head(response: Response, request_id: str, framing: str) -> bytes:
    """Return a reply's head but for its last lines."""
    status = response.status
    head = (
        f"{_status_line(status)}Date: {_date(int(time.time()))}\r\nX-Request-Id: {request_id}\r\n"
    )
    if status not in _BODILESS:
        head += _content_type(response.content_type) + framing
    if response.headers:
        head += _extra(response.headers)
    return head.encode("latin-1")


# RFC 9110 has renamed two that Python still knows by their old names.
_RENAMED = {413: "Content Too Large", 422: "Unprocessable Content"}


@cache
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {_RENAMED.get(status) or HTTPStatus(status).phrase}\r\n"


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


@lru_cache(maxsize=64)
def _content_type(media_type: str) -> str:
    if not _VALUE.fullmatch(media_type):
        raise BadReply(f"content type {media_type!r} cannot be sent")
    return f"Content-Type: {media_type}\r\n"


@lru_cache(maxsize=256)
def _is_fit(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name.lower() not in _RESERVED


def _extra(headers: Mapping[str, str]) -> str:
    lines: list[str] = []
    for name, value in headers.items():
        if not (_is_fit(name) and _VALUE.fullmatch(value)):
            raise BadReply(f"header {name!r}: {value!r} cannot be sent by a handler")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines)


async def _send_iterated(
    wire: ConnectionIO,
    response: Response,
    body: AsyncIterator[bytes],
    request_id: str,
    *,
    close: bool,
    head_only: bool,
) -> None:
    length = response.content_length
    # HTTP/1.0 knows no chunks: there the end of the connection is the end of the body.
    chunked = length is None and wire.machine.their_http_version != b"1.0"
    framing = f"Content-Length: {length}\r\n" if length is not None else ""
    try:
        head = _head(response, request_id, "Transfer-Encoding: chunked\r\n" if chunked else framing)
        await wire.send(head + _begin(wire, close=close))
        if not (head_only or response.status in _BODILESS):
            if chunked:
                await _send_chunks(wire, body)
            else:
                await _send_counted(wire, body, length)
        wire.machine.send(_END)
    finally:
        # A generator that is not run to its end keeps its file open until it is closed.
        aclose = getattr(body, "aclose", None)
        if aclose is not None:
            await aclose()


async def _send_chunks(wire: ConnectionIO, body: AsyncIterator[bytes]) -> None:
    async for piece in body:
        if piece:
            await wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    await wire.send(b"0\r\n\r\n")


async def _send_counted(wire: ConnectionIO, body: AsyncIterator[bytes], length: int | None) -> None:
    sent = 0
    async for piece in body:
        sent += len(piece)
        if length is not None and sent > length:
            raise BadReply(f"a body of {length} bytes was announced, and more came")
        await wire.send(piece)
    if length is not None and sent < length:
        raise BadReply(f"a body of {length} bytes was announced, and {sent} came")
