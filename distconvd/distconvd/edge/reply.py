"""A `Response` as bytes: its head, and how its body goes out.

A reply that is all there leaves in one `send_all`; one that is still being made, piece by piece as
it comes.
"""

import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from functools import cache, lru_cache
from http import HTTPStatus

import h11

from distconvd.edge.http import Response
from distconvd.edge.wire import Wire

_BODILESS = frozenset((204, 304))
_END = h11.EndOfMessage()


@cache
def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""


@lru_cache(maxsize=64)
def _encoded(text: str) -> bytes:
    return text.encode("latin-1")


@lru_cache(maxsize=2)
def _date_of(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode("ascii")


def head_of(response: Response, request_id: str, *, close: bool) -> h11.Response:
    """Return the head of a reply.

    Raises:
        ValueError, h11.LocalProtocolError: a header of the handler's cannot be sent.
    """
    headers = [
        (b"Date", _date_of(int(time.time()))),
        (b"X-Request-Id", request_id.encode("ascii")),
    ]
    if response.status not in _BODILESS:
        headers.append((b"Content-Type", _encoded(response.content_type)))
        length = _length(response)
        if length is not None:
            headers.append((b"Content-Length", b"%d" % length))
    for name, value in response.headers.items():
        headers.append((_encoded(name), value.encode("latin-1")))
    if close:
        headers.append((b"Connection", b"close"))
    return h11.Response(
        status_code=response.status, headers=headers, reason=_reason(response.status)
    )


def _length(response: Response) -> int | None:
    return len(response.body) if isinstance(response.body, bytes) else response.content_length


async def send_reply(wire: Wire, head: h11.Response, response: Response, *, bodiless: bool) -> None:
    """Send a whole reply.

    Args:
        wire: where to; its h11 is ready for a response.
        head: from `head_of`.
        response: whose body to send; an iterator is closed in any case.
        bodiless: the request was HEAD.

    Raises:
        ClientDisconnected: the client is gone.
        h11.LocalProtocolError: an iterator yields more or less than it announced.
        Exception: whatever an iterator raises.
    """
    body = response.body
    bodiless = bodiless or response.status in _BODILESS
    if not isinstance(body, bytes):
        await _send_iterated(wire, head, body, bodiless=bodiless)
        return
    send = wire.machine.send
    data = send(head)
    if body and not bodiless:
        data += send(h11.Data(data=body))
    await wire.send(data + send(_END))


async def _send_iterated(
    wire: Wire, head: h11.Response, body: AsyncIterator[bytes], *, bodiless: bool
) -> None:
    send = wire.machine.send
    try:
        await wire.send(send(head))
        if not bodiless:
            async for chunk in body:
                if chunk:
                    await wire.send(send(h11.Data(data=chunk)))
        if end := send(_END):
            await wire.send(end)
    finally:
        # A generator that is not run to its end keeps its file open until it is closed.
        close = getattr(body, "aclose", None)
        if close is not None:
            await close()
