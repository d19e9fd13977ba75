"""Publish a verified output in its place, whole or not at all.

In a directory: a temporary name in the same directory, fsync, rename, fsync of the directory; only
then is the job complete. By HTTP: PUT with length and `Repr-Digest` (RFC 9530), tried again while
the server is unavailable; to the daemon's media store, from where the last try broke off.
"""

import base64
import errno
import os
import shutil
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import httpx
import trio

from distconv_engine.backoff import Backoff
from distconv_engine.failures import EngineFault, InputFault, TransientFault
from distconv_engine.files import describe_fault, fsync_directory, fsync_file, hash_file, is_full
from distconv_engine.key import with_key
from distconv_engine.transfer.destination import FileTarget, HttpTarget

_CHUNK_BYTES = 1 << 18
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_REMOTE_DISK_FULL = 507
PUT_TRIES = 6
PUT_TIMEOUT = httpx.Timeout(60.0, connect=10.0)


def temporary_of(target: FileTarget, token: str) -> Path:
    """Return the temporary name in the target's directory; `token` distinguishes attempts."""
    return target.directory / f".{token}.distconv-part"


async def publish_file(
    path: Path, sha256: str, target: FileTarget, temporary: Path, source: Path | None
) -> str:
    """Move `path` to its place and return its `file://` URL.

    Args:
        path: the verified output; it may be moved away.
        sha256: its digest, checked again if it had to be copied.
        target: where to.
        temporary: from `temporary_of`.
        source: the job's source, which is never replaced.
    """
    try:
        with directory_faults(target):
            final = await trio.to_thread.run_sync(_place, path, sha256, target, temporary, source)
    except (TransientFault, EngineFault):
        await trio.Path(temporary).unlink(missing_ok=True)
        raise
    return final.as_uri()


@contextmanager
def directory_faults(target: FileTarget) -> Generator[None]:
    """Turn an error of the target's disk into the job's failure."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise TransientFault("The output's disk is full.") from error
        raise EngineFault(
            f"The output cannot be written to {target.directory}: {error.strerror}."
        ) from error


def _place(
    path: Path, sha256: str, target: FileTarget, temporary: Path, source: Path | None
) -> Path:
    target.directory.mkdir(parents=True, exist_ok=True)
    final = target.directory / target.name
    replaces_source = source is not None and final.exists() and final.samefile(source)
    if replaces_source and target.replace:
        raise InputFault("The output would replace its own source. Choose another name.")
    _move_durably(path, sha256, temporary)
    if target.replace:
        temporary.replace(final)
    elif not _link(temporary, final):
        final = target.directory / target.spare_name  # made from the job's id: it is our own
        temporary.replace(final)
    fsync_directory(target.directory)
    return final


def _move_durably(path: Path, sha256: str, temporary: Path) -> None:
    """Move the bytes to `temporary`, durably: by rename on the same disk, else by copy."""
    try:
        path.rename(temporary)  # does nothing if it was written there directly
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(path, temporary)
        if hash_file(temporary)[0] != sha256:
            raise OSError(errno.EIO, "the copy differs from the original") from error
    fsync_file(temporary)


def _link(temporary: Path, final: Path) -> bool:
    """Give `temporary` the name `final` unless that exists; returns whether it did."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        if final.exists():  # no hard links here: a race is possible, on this file system only
            return False
        temporary.replace(final)
        return True
    temporary.unlink()
    return True


async def publish_http(
    client: httpx.AsyncClient,
    path: Path,
    sha256: str,
    target: HttpTarget,
    *,
    key: str | None,
    content_type: str,
    on_progress: Callable[[float], None],
) -> str:
    """PUT `path` to its URL and return the URL; `key` goes to the daemon's media store only."""
    size = (await trio.Path(path).stat()).st_size
    digest = base64.b64encode(bytes.fromhex(sha256)).decode("ascii")
    headers = with_key(
        {"Content-Type": content_type, "Repr-Digest": f"sha-256=:{digest}:"},
        key if target.is_media_store else None,
    )
    backoff, reason = Backoff(0.5, 15.0), ""
    for number in range(PUT_TRIES):
        try:
            # Only a try that broke off can have left a part there.
            resumes = number > 0 and target.is_media_store
            start = await _offset(client, target.url, headers, size) if resumes else 0
            reply = await _put(client, path, target.url, headers, start, size, on_progress)
        except httpx.TransportError as error:
            reason = describe_fault(error)
        except httpx.InvalidURL as error:
            raise InputFault(f"The output's URL does not work: {error}") from error
        else:
            if reply.is_success:
                return target.url
            reason = f"it answered {reply.status_code} {reply.reason_phrase}"
            if reply.status_code == _REMOTE_DISK_FULL:
                break  # it will not pass soon, and another try would send all of it again
            # 400: the digest did not match; 409: its part has gone, or another upload took over.
            start_over = target.is_media_store and reply.status_code in (400, 409)
            if reply.status_code not in _TRY_AGAIN and not start_over:
                raise EngineFault(f"The output cannot be uploaded to {target.url}: {reason}.")
        await trio.sleep(backoff.next_s())
    raise TransientFault(f"The output cannot be uploaded to {target.url}: {reason}.")


async def _offset(client: httpx.AsyncClient, url: str, headers: httpx.Headers, size: int) -> int:
    """Ask the media store how much of this same file it has; its module describes the scheme."""
    headers = httpx.Headers(headers)
    headers["X-Upload-Length"] = str(size)
    reply = await client.head(url, headers=headers, timeout=PUT_TIMEOUT)
    offset = reply.headers.get("X-Upload-Offset", "")
    return min(int(offset), size) if reply.is_success and offset.isdigit() else 0


async def _put(
    client: httpx.AsyncClient,
    path: Path,
    url: str,
    headers: httpx.Headers,
    start: int,
    size: int,
    on_progress: Callable[[float], None],
) -> httpx.Response:
    """Send the file from `start` on; `Content-Range` says which part it is."""
    start = min(start, size - 1)  # if all of it is there, its last byte again, for the answer
    headers = httpx.Headers(headers)
    headers["Content-Length"] = str(size - start)
    if start > 0:
        headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    async with await trio.open_file(path, "rb") as file:
        await file.seek(start)
        body = _Body(file, start, size, on_progress)
        request = client.build_request("PUT", url, headers=headers, timeout=PUT_TIMEOUT)
        request.stream = body
        # No redirect is followed: the body is consumed by then, and the key is not for others.
        return await client.send(request, follow_redirects=False)


class _Readable(Protocol):
    async def read(self, size: int, /) -> bytes: ...


class _Body(httpx.AsyncByteStream):
    """A file from its present position to its end.

    Not a generator: when the connection breaks, nothing would close it.
    """

    def __init__(
        self,
        file: _Readable,
        start: int,
        size: int,
        on_progress: Callable[[float], None],
    ) -> None:
        self._file = file
        self._sent = start
        self._size = size
        self._on_progress = on_progress

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._on_progress(self._sent / self._size if self._size else 1.0)
        chunk = await self._file.read(_CHUNK_BYTES)
        if not chunk:
            raise StopAsyncIteration
        self._sent += len(chunk)
        return chunk
