"""Send one HTTP POST, http or https, on trio and h11.

The daemon has no HTTP client among its dependencies, and the webhook needs only a connection, a
request and the status of the reply. Redirects are not followed: a signed body goes only to the
configured URL.
"""

import ssl
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

import h11
import trio

REPLY_BYTES_MAX = 65_536
"""A reply's head may not be longer; only its status and headers are read."""


class PostReply(NamedTuple):
    """The status and headers of a reply."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""


def check_url(url: str) -> str:
    """Return the URL; raises `ValueError` for one that cannot be posted to."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(
            f"{loggable_url(url)}: expected an http or https URL such as https://example.com/hook"
        )
    if parts.username is not None or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(
            f"{loggable_url(url)}: expected a URL without a user, a space, or a character that must be"
            " percent-encoded"
        )
    return url


def loggable_url(url: str) -> str:
    """Return what may be logged of a URL: scheme, host and port. Its path is often a secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{'/…' if parts.path.strip('/') or parts.query else '/'}"


async def post(
    url: str, body: bytes, headers: Mapping[str, str], *, tls: ssl.SSLContext | None = None
) -> PostReply:
    """Send a body and return the status of the reply, on a connection of its own.

    Args:
        url: one that `check_url` accepts.
        body: what to send.
        headers: in addition to `Host` and `Content-Length`.
        tls: for https; None for the system's certificates.

    Raises `OSError` for anything that goes wrong.
    """
    parts = urlsplit(url)
    try:
        stream = await _connect(parts, tls)
        try:
            machine = h11.Connection(h11.CLIENT)
            await stream.send_all(_request(machine, parts, body, headers))
            return await _reply(machine, stream)
        finally:
            await trio.aclose_forcefully(stream)
    except (trio.BrokenResourceError, ssl.CertificateError) as error:
        raise ConnectionError(str(error.__cause__ or error)) from error
    except h11.ProtocolError as error:
        raise ConnectionError(f"the reply is not HTTP: {error}") from error


async def _connect(parts: SplitResult, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    host = parts.hostname or ""
    is_secure = parts.scheme == "https"
    stream = await trio.open_tcp_stream(host, parts.port or (443 if is_secure else 80))
    if not is_secure:
        return stream
    context = tls or ssl.create_default_context()
    return trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)


def _request(
    machine: h11.Connection, parts: SplitResult, body: bytes, headers: Mapping[str, str]
) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = {"Host": parts.netloc, "Content-Length": str(len(body)), "Connection": "close"}
    pieces = [
        machine.send(
            h11.Request(method="POST", target=target, headers=[*fields.items(), *headers.items()])
        ),
        machine.send(h11.Data(data=body)),
        machine.send(h11.EndOfMessage()),
    ]
    return b"".join(piece or b"" for piece in pieces)


async def _reply(machine: h11.Connection, stream: trio.abc.Stream) -> PostReply:
    """Read up to the end of the reply's head."""
    received = 0
    while received <= REPLY_BYTES_MAX:
        event = machine.next_event()
        if isinstance(event, h11.Response):
            names = {n.decode().lower(): v.decode("latin-1") for n, v in event.headers}
            return PostReply(event.status_code, names)
        if event is h11.NEED_DATA:
            data = bytes(await stream.receive_some())
            received += len(data)
            machine.receive_data(data)
        elif isinstance(event, h11.ConnectionClosed):
            break
    raise ConnectionError("the connection ended without a reply")
