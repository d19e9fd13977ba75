"""Answer with a stored file: conditions, one range, and a body that is read as it is sent."""

import errno
import os
import re
from collections.abc import Mapping
from email.utils import formatdate

import trio

from distconv_plugins.media_store.names import content_type_of
from distconv_plugins.media_store.tree import Stored
from distconv_plugins.media_store.upload import digest_header
from distconvd.errors import RangeNotSatisfiable
from distconvd.plugin_api import Response

_PIECE_BYTES = 262_144
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_ETAG = re.compile(r'(?:W/)?"[^"]*"')


class FileBody:
    """Iterates over a range of an open file, and closes it.

    Resource handling: the descriptor is closed at the end, by `aclose`, or with the object, so a
    reply that is never sent leaks nothing.
    """

    def __init__(
        self, descriptor: int, offset: int, length: int, limiter: trio.CapacityLimiter
    ) -> None:
        self._descriptor: int | None = descriptor
        self._offset = offset
        self._remaining = length
        self._limiter = limiter

    def __aiter__(self) -> "FileBody":
        return self

    async def __anext__(self) -> bytes:
        if self._descriptor is None or self._remaining == 0:
            self._close()
            raise StopAsyncIteration
        wanted = min(_PIECE_BYTES, self._remaining)
        data = await trio.to_thread.run_sync(
            os.pread, self._descriptor, wanted, self._offset, limiter=self._limiter
        )
        if not data:
            raise OSError(errno.EIO, "a stored file was truncated while it was sent")
        self._offset += len(data)
        self._remaining -= len(data)
        return data

    async def aclose(self) -> None:
        """Close the file; may be called more than once."""
        self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self._close()


def reply_with(
    stored: Stored, name: str, headers: Mapping[str, str], limiter: trio.CapacityLimiter
) -> Response:
    """Answer with a stored file, or with the range of it that the headers ask for.

    Raises:
        RangeNotSatisfiable: the range begins beyond the end.
    """
    body = FileBody(stored.descriptor, 0, stored.size_bytes, limiter)
    etag = _etag(stored)
    response_headers = {
        "ETag": etag,
        "Last-Modified": formatdate(stored.mtime_ns // 1_000_000_000, usegmt=True),
        "Accept-Ranges": "bytes",
        # Stored files come from outside: a browser may play them, but not guess a type and run it.
        "X-Content-Type-Options": "nosniff",
    }
    if stored.sha256 is not None:
        response_headers["Repr-Digest"] = digest_header(stored.sha256)
    if _matches(headers.get("if-none-match", ""), etag):
        return Response(304, b"", headers=response_headers)
    kind = content_type_of(name)
    wanted = _range(headers, etag, stored.size_bytes)
    if wanted is None:
        return Response(200, body, kind, response_headers, stored.size_bytes)
    first, length = wanted
    response_headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{stored.size_bytes}"
    piece = FileBody(os.dup(stored.descriptor), first, length, limiter)
    return Response(206, piece, kind, response_headers, length)


def _etag(stored: Stored) -> str:
    return f'"{stored.sha256 or f"{stored.size_bytes}-{stored.mtime_ns}"}"'


def _matches(condition: str, etag: str) -> bool:
    """Whether an If-None-Match matches the tag (RFC 9110 section 13.1.2: weak comparison)."""
    if condition.strip() == "*":
        return True
    return etag in (tag.removeprefix("W/") for tag in _ETAG.findall(condition))


def _range(headers: Mapping[str, str], etag: str, size: int) -> tuple[int, int] | None:
    """Return first byte and length of the requested range; None for the whole file.

    RFC 9110 section 14.2 lets a server ignore a Range that it does not support; this one does not
    support several ranges in one request, nor an If-Range by date.
    """
    match = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if match is None or headers.get("if-range", etag) != etag or match[1] == match[2] == "":
        return None
    if match[1] == "":
        length = min(int(match[2]), size)
        first = size - length
    else:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        if match[2] and int(match[2]) < first:
            return None  # an invalid range, section 14.1.1
        length = last - first + 1
    if length <= 0:
        raise RangeNotSatisfiable(
            f"The file has {size} bytes.", headers={"Content-Range": f"bytes */{size}"}
        )
    return first, length
