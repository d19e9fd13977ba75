"""Publish a verified output in its place, whole or not at all.

In a directory: a temporary name in the same directory, fsync, rename, fsync of the directory; only
then is the job complete. No link is followed on the way there (`folder`). By HTTP: PUT with length and `Repr-Digest` (RFC 9530), tried again while
the server is unavailable; to the daemon's media store, from where the last try broke off.
"""

import base64
import stat
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import httpx
import trio

from distconv_engine.backoff import Backoff
from distconv_engine.failures import (
    EngineFault,
    InputFault,
    JobFailure,
    NoAccess,
    NotAllowedHere,
    OutputRefused,
    TransientFault,
)
from distconv_engine.files import describe_fault, is_full
from distconv_engine.key import with_key
from distconv_engine.transfer.destination import FileTarget, HttpTarget
from distconv_engine.transfer.folder import Folder, LinkOnTheWay, open_folder
from distconv_engine.transfer.guard import output_at

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
    with directory_faults(target):
        name = await trio.to_thread.run_sync(_place, path, sha256, target, temporary.name, source)
    return (target.directory / name).as_uri()


async def require_free_name(target: FileTarget, source: Path | None) -> None:
    """Raise `InputFault` if the output could not be published under its name, before it is made."""
    with directory_faults(target):
        await trio.to_thread.run_sync(_check_name, target, source)


@contextmanager
def directory_faults(target: FileTarget) -> Generator[None]:
    """Turn an error of the target's disk into the job's failure."""
    try:
        yield
    except LinkOnTheWay as error:
        raise NotAllowedHere(
            f"This engine may not write to {target.directory}: {error.strerror}."
        ) from error
    except OSError as error:
        if is_full(error):
            raise TransientFault("The output's disk is full.") from error
        raise NoAccess(
            f"The output cannot be written to {target.directory}: {error.strerror}."
        ) from error


def _check_name(target: FileTarget, source: Path | None) -> None:
    try:
        folder = open_folder(target.root, target.parts, create=False)
    except FileNotFoundError:
        return  # it will be made
    with folder:
        _require_replaceable(folder, target, source)


def _place(path: Path, sha256: str, target: FileTarget, temporary: str, source: Path | None) -> str:
    """Publish `path` and return the name that it got."""
    with open_folder(target.root, target.parts, create=True) as folder:
        try:
            _require_replaceable(folder, target, source)
            folder.move_in(path, temporary, sha256)
            folder.make_durable(temporary, target.job_id)
            name = _give_name(folder, temporary, target, source)
        except (OSError, InputFault):
            folder.remove(temporary)
            raise
        folder.sync()
        return name


def _give_name(folder: Folder, temporary: str, target: FileTarget, source: Path | None) -> str:
    for name in (target.name, target.spare_name):
        if name is None:
            continue
        if folder.give_new_name(temporary, name):
            return name
        if _may_replace(folder, target, name, source):
            folder.replace(temporary, name)
            return name
    raise _exists(target)


def _require_replaceable(folder: Folder, target: FileTarget, source: Path | None) -> None:
    """Raise `InputFault` if the job's only name is taken."""
    if target.spare_name is not None or folder.status(target.name) is None:
        return
    if source is not None and folder.is_same_file(target.name, source):
        raise InputFault("The output would replace its own source. Choose another name.")
    if not _may_replace(folder, target, target.name, source):
        raise _exists(target)


def _may_replace(folder: Folder, target: FileTarget, name: str, source: Path | None) -> bool:
    """Whether a file that is there may be replaced."""
    if source is not None and folder.is_same_file(name, source):
        return False
    if folder.is_result_of(name, target.job_id):
        return True
    status = folder.status(name)
    return target.overwrite and (status is None or not stat.S_ISDIR(status.st_mode))


def _exists(target: FileTarget) -> InputFault:
    return InputFault(
        f"{target.directory / target.name} exists already, and is no earlier result of this job."
        " Choose another name, or submit with options.overwrite to replace it."
    )


def refused(target: HttpTarget, reason: str) -> JobFailure:
    """Return the failure of an upload that another try would not change."""
    message = f"The output cannot be uploaded to {target.url}: {reason}."
    return OutputRefused(message) if target.is_of_job else EngineFault(message)


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
                raise refused(target, reason)
        await trio.sleep(backoff.next_s())
    raise TransientFault(f"The output cannot be uploaded to {target.url}: {reason}.")


async def _offset(client: httpx.AsyncClient, url: str, headers: httpx.Headers, size: int) -> int:
    """Ask the media store how much of this same file it has; its module describes the scheme."""
    headers = httpx.Headers(headers)
    headers["X-Upload-Length"] = str(size)
    reply = await client.head(url, headers=headers, timeout=PUT_TIMEOUT, extensions=output_at(url))
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
        request = client.build_request(
            "PUT", url, headers=headers, timeout=PUT_TIMEOUT, extensions=output_at(url)
        )
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
