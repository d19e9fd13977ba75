"""Write a `Response`: its head, then its body.

h11 reads requests, but replies are written here. Its own writer checks each header twice with regular
expressions and makes three events of every reply, a quarter of the time of a small request; the only
part of a reply that needs a check, the handlers' headers, is checked here once.

A complete reply is sent in one `send_all`; one with an iterator for its body, piece by piece.
"""

import re
import time
from collections.abc import AsyncIterator, Mapping
from email.utils import formatdate
from functools import cache, lru_cache
from http import HTTPStatus

from distconvd.edge.connection_io import SEND_BYTES, ConnectionIO
from distconvd.edge.http import Response

_BODILESS = frozenset((204, 304))
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# Framing, and what every reply has: sent twice, they would let two readers see different replies.
_RESERVED = frozenset(
    ("connection", "content-length", "content-type", "date", "transfer-encoding", "x-request-id")
)


class BadReply(Exception):
    """A handler's reply cannot be sent as it is: a bug, logged with a traceback."""


async def send_reply(
    wire: ConnectionIO, response: Response, request_id: str, *, close: bool, head_only: bool
) -> None:
    """Send a whole reply.

    Args:
        wire: the connection, on which no reply to this request has begun.
        response: what to send; an iterator is always closed.
        request_id: sent as `X-Request-Id`.
        close: announce that it is the last reply.
        head_only: the request was HEAD.

    Raises:
        ClientDisconnected: the client is gone.
        BadReply: a header is invalid (nothing has been sent then), or an iterator yields more or
            less than it announced.
        Exception: whatever an iterator raises.
    """
    body = response.body
    if not isinstance(body, bytes):
        await _send_iterated(wire, response, body, request_id, close=close, head_only=head_only)
        return
    length = len(body)
    if head_only and response.content_length is not None:
        length = response.content_length
    head = _head(response, request_id, f"Content-Length: {length}\r\n", close=close)
    wire.reply = "begun"
    if head_only or response.status in _BODILESS:
        body = b""
    if len(body) > SEND_BYTES:
        await wire.send(head)
        await wire.send(body)  # separately: joining would copy what may be a listing of everything
    else:
        await wire.send(head + body)
    wire.reply = "sent"


def _head(response: Response, request_id: str, framing: str, *, close: bool) -> bytes:
    status = response.status
    head = (
        f"{_status_line(status)}Date: {_date(int(time.time()))}\r\nX-Request-Id: {request_id}\r\n"
    )
    if status not in _BODILESS:
        head += _content_type(response.content_type) + framing
    if response.headers:
        head += _header_lines(response.headers)
    head += "Connection: close\r\n\r\n" if close else "\r\n"
    return head.encode("latin-1")


# RFC 9110 has renamed two statuses that Python still has under their old names.
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
        raise BadReply(f"the content type {media_type!r} is invalid")
    return f"Content-Type: {media_type}\r\n"


@lru_cache(maxsize=256)
def _is_allowed_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name.lower() not in _RESERVED


def _header_lines(headers: Mapping[str, str]) -> str:
    lines: list[str] = []
    for name, value in headers.items():
        if not (_is_allowed_name(name) and _VALUE.fullmatch(value)):
            raise BadReply(f"a handler may not send the header {name!r}: {value!r}")
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
    # HTTP/1.0 has no chunked coding: there the end of the connection is the end of the body.
    chunked = length is None and wire.machine.their_http_version != b"1.0"
    framing = f"Content-Length: {length}\r\n" if length is not None else ""
    try:
        framing = "Transfer-Encoding: chunked\r\n" if chunked else framing
        head = _head(response, request_id, framing, close=close)
        wire.reply = "begun"
        await wire.send(head)
        if not (head_only or response.status in _BODILESS):
            if chunked:
                await _send_chunks(wire, body)
            else:
                await _send_counted(wire, body, length)
        wire.reply = "sent"
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
            raise BadReply(f"a body of {length} bytes was announced, but the iterator yielded more")
        await wire.send(piece)
    if length is not None and sent < length:
        raise BadReply(f"a body of {length} bytes was announced, but the iterator yielded {sent}")
