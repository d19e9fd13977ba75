"""Store finished files for engines that have no other place to put them: `/media/…`.

A PUT streams into a part, which is hashed on the way and becomes visible by rename once it is
complete, matches its `Repr-Digest` and is on disk; a PUT to the same name replaces the file in one
step. No more than about a megabyte of it is in memory.

Resuming: an upload that states its size and its digest has an identity, so its part is kept when
the connection breaks. `HEAD` with the same `Repr-Digest` and `X-Upload-Length` is answered with
`X-Upload-Offset`; `PUT` with `Content-Range: bytes OFFSET-LAST/SIZE` continues from there: 201 if
it completed the file, 202 if it was a piece in the middle, 409 with the right `X-Upload-Offset` if
the part is shorter than OFFSET. A second upload of the same identity takes over from the first,
whose connection is likely dead. Parts that nobody resumes expire.
"""

import errno
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar, TypeVarTuple

import msgspec
import trio

from distconv_plugins.media_store import doc as docs
from distconv_plugins.media_store.doc import MediaReply
from distconv_plugins.media_store.names import parse_name, url_of
from distconv_plugins.media_store.replies import reply_with
from distconv_plugins.media_store.tree import MediaTree, Part, Stored
from distconv_plugins.media_store.upload import Upload, digest_header, question_of, upload_of
from distconvd import hookimpl
from distconvd.errors import (
    BadRequest,
    BodyTooLarge,
    Conflict,
    InsufficientStorage,
    NotFound,
    Unavailable,
)
from distconvd.hookspecs import PluginContext, Registrar, RoutesFactory, SettingsRegistrar
from distconvd.plugin_api import BodyReader, Request, Response, Route

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_PIECE_BYTES = 1_048_576
_SWEEP_S = 3600.0
_THREADS = 8
"""The store's own threads: uploads to a slow disk must not take those that commits need."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_NOT_A_FILE = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY)


class MediaSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.media-store]`."""

    file_bytes_max: Annotated[int, msgspec.Meta(gt=0)] = 1_000_000_000_000
    """A larger upload is rejected with 413."""
    reserve_bytes: Annotated[int, msgspec.Meta(ge=0)] = 1_000_000_000
    """This much of the disk stays free; an upload that would use it is rejected with 507."""
    part_keep_s: Annotated[float, msgspec.Meta(ge=0)] = 86_400.0
    """How long the part of a broken upload is kept for resuming."""


class DigestMismatch(BadRequest):
    """The received file is not the one that was announced."""


class NameTaken(Conflict):
    """The name belongs to a folder, or a part of the path is a file."""


_CORRUPTED = (DigestMismatch, NameTaken, BodyTooLarge, InsufficientStorage, Unavailable)


class _Running(NamedTuple):
    """An upload that is being received."""

    scope: trio.CancelScope
    done: trio.Event


class MediaStore:
    """The store as routes.

    Args:
        directory: where the files are; created if it is missing.
        settings: its bounds.
    """

    def __init__(self, directory: Path, settings: MediaSettings | None = None) -> None:
        self._tree = MediaTree(directory.absolute())
        self._settings = settings or MediaSettings()
        self._limiter = trio.CapacityLimiter(_THREADS)
        self._running: dict[str, _Running] = {}
        self._swept_at_s = -_SWEEP_S

    def routes(self) -> list[Route]:
        """Return the routes."""
        name = "/media/{name...}"
        return [
            Route(
                "PUT", name, self.put, "engine", "stream", content_types=("*/*",),
                summary="Store a file, whole or the rest of a broken upload", doc=docs.PUT,
            ),
            Route(
                "GET", name, self.get, "read",
                summary="Fetch a stored file, or a range of it", doc=docs.GET,
            ),
            Route(
                "HEAD", name, self.head, "read",
                summary="Ask about a file, or about an upload", doc=docs.HEAD,
            ),
        ]  # fmt: skip

    async def get(self, request: Request) -> Response:
        """Answer with a file or a range of it."""
        segments = parse_name(request.params["name"])
        return reply_with(await self._open(segments), segments[-1], request.headers, self._limiter)

    async def head(self, request: Request) -> Response:
        """Answer what `get` would, without the body; or how much of an upload has arrived."""
        segments = parse_name(request.params["name"])
        question = question_of(request.headers)
        if question is not None:
            return await self._offset_of(segments, question)
        headers = {k: v for k, v in request.headers.items() if k != "range"}  # RFC 9110, 14.2
        whole = reply_with(await self._open(segments), segments[-1], headers, self._limiter)
        return Response(whole.status, b"", whole.content_type, whole.headers, whole.content_length)

    async def put(self, request: Request) -> Response:
        """Store a file.

        Raises:
            BadRequest: bad name or headers; another digest or length than announced.
            BodyTooLarge: larger than the store's limit for one file.
            InsufficientStorage: larger than the disk's free space beyond the reserve.
            Conflict: the name belongs to a folder, or the range begins beyond the part's end.
        """
        segments, reader = parse_name(request.params["name"]), request.reader
        upload = upload_of(request.headers)
        self._require_size(upload.total or 0)
        await self._sweep()
        await self._disk(self._require_disk_space, upload.length or 0)
        name = upload.part_name(segments)
        if name is None:
            return await self._receive(segments, upload, f"tmp-{secrets.token_hex(16)}", reader)
        async with self._take_over(name):
            return await self._receive(segments, upload, name, reader)

    # -------------------------------------------------------------------------------------- upload

    async def _receive(
        self, segments: tuple[str, ...], upload: Upload, name: str, reader: BodyReader
    ) -> Response:
        async with self._part(name, resumable=name.startswith("id-")) as part:
            await self._seek(part, upload.offset)
            await self._read_body(part, upload, reader)
            if upload.total is not None and part.size_bytes < upload.total:
                return Response(202, headers={"X-Upload-Offset": str(part.size_bytes)})
            if upload.sha256 not in (None, part.sha256):
                raise DigestMismatch(
                    f"The received file has the sha-256 {part.sha256}, not {upload.sha256}: "
                    "send it again."
                )
            await self._disk(part.publish, self._tree, segments)
        return self._created(segments, part)

    @asynccontextmanager
    async def _part(self, name: str, *, resumable: bool) -> AsyncGenerator[Part]:
        part = await self._disk(self._tree.part, name)
        close = part.keep
        try:
            yield part
        except BaseException as error:
            # After a broken connection (or a shutdown) the received bytes are kept for resuming;
            # after a fault of the file or of the disk they are useless.
            close = part.keep if resumable and not isinstance(error, _CORRUPTED) else part.discard
            raise
        finally:
            with trio.CancelScope(shield=True):
                await self._disk(close)

    async def _seek(self, part: Part, offset: int) -> None:
        size_bytes = await self._disk(part.cut, offset)
        if size_bytes < offset:
            raise Conflict(
                f"The store has {size_bytes} bytes of this file: continue from there.",
                headers={"X-Upload-Offset": str(size_bytes)},
            )
        while not await self._disk(part.reread, offset):
            pass  # in portions, so that it can be cancelled in between

    async def _read_body(self, part: Part, upload: Upload, reader: BodyReader) -> None:
        pieces: list[bytes] = []
        buffered, received = 0, 0
        async with _closing(reader.chunks()) as chunks:
            async for piece in chunks:
                pieces.append(piece)
                buffered, received = buffered + len(piece), received + len(piece)
                self._require_size(part.size_bytes + buffered)
                if buffered >= _PIECE_BYTES:
                    await self._disk(self._append, part, b"".join(pieces))
                    pieces, buffered = [], 0
        await self._disk(self._append, part, b"".join(pieces))
        if upload.length not in (None, received):
            raise BadRequest(f"{upload.length} bytes were announced, but {received} arrived.")

    def _append(self, part: Part, data: bytes) -> None:
        self._require_disk_space(len(data))
        part.write(data)

    @asynccontextmanager
    async def _take_over(self, name: str) -> AsyncGenerator[None]:
        """Be the only upload that writes a part: stop the one that did so before."""
        while (other := self._running.get(name)) is not None:
            other.scope.cancel()
            await other.done.wait()
        mine = _Running(trio.CancelScope(), trio.Event())
        self._running[name] = mine
        try:
            with mine.scope:
                yield
        finally:
            del self._running[name]
            mine.done.set()
        if mine.scope.cancelled_caught:
            raise Conflict("Another upload of the same file has taken over from this one.")

    async def _offset_of(self, segments: tuple[str, ...], question: Upload) -> Response:
        offset = 0
        if (name := question.part_name(segments)) is not None:
            offset = await self._disk(self._tree.part_size, name)
            if await self._has(segments, question):
                offset = question.total or 0
        return Response(204, headers={"X-Upload-Offset": str(offset)})

    async def _has(self, segments: tuple[str, ...], question: Upload) -> bool:
        """Whether exactly this file is stored already: then its 201 was lost."""
        try:
            stored = await self._open(segments)
        except NotFound:
            return False
        os.close(stored.descriptor)
        return (stored.size_bytes, stored.sha256) == (question.total, question.sha256)

    def _created(self, segments: tuple[str, ...], part: Part) -> Response:
        url, path = url_of(segments), str(self._tree.root.joinpath(*segments))
        reply = MediaReply(url, path, part.size_bytes, part.sha256)
        headers = {"Location": url, "Repr-Digest": digest_header(part.sha256)}
        return Response(201, msgspec.json.encode(reply), headers=headers)

    # -------------------------------------------------------------------------------------- bounds

    def _require_size(self, size_bytes: int) -> None:
        if size_bytes > self._settings.file_bytes_max:
            raise BodyTooLarge(
                f"The media store takes files of at most {self._settings.file_bytes_max} bytes."
            )

    def _require_disk_space(self, size_bytes: int) -> None:
        spare = self._tree.free_bytes() - self._settings.reserve_bytes
        if size_bytes > spare:
            raise InsufficientStorage(
                f"The media store's disk has {max(spare, 0)} bytes to spare, "
                f"but the upload needs {size_bytes}."
            )

    async def _sweep(self) -> None:
        """Remove expired parts, at most once an hour."""
        if trio.current_time() - self._swept_at_s >= _SWEEP_S:
            self._swept_at_s = trio.current_time()
            await self._disk(self._tree.expire_parts, self._settings.part_keep_s)

    # ---------------------------------------------------------------------------------------- disk

    async def _open(self, segments: tuple[str, ...]) -> Stored:
        try:
            return await trio.to_thread.run_sync(self._tree.open, segments, limiter=self._limiter)
        except OSError as error:
            if error.errno in _NO_FILE or isinstance(error, FileNotFoundError):
                raise NotFound("The media store has no such file.") from None
            raise Unavailable(f"The media store's disk failed: {error.strerror}.") from error

    async def _disk(self, work: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
        try:
            return await trio.to_thread.run_sync(work, *args, limiter=self._limiter)
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise InsufficientStorage("The media store's disk is full.") from error
            if error.errno in _NOT_A_FILE:
                raise NameTaken(
                    "This name belongs to a folder, or a part of its path is a file."
                ) from error
            raise Unavailable(f"The media store's disk failed: {error.strerror}.") from error


@asynccontextmanager
async def _closing(chunks: AsyncIterator[bytes]) -> AsyncGenerator[AsyncIterator[bytes]]:
    """Close an iterator that may be left early, if it is a generator."""
    try:
        yield chunks
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


@hookimpl
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare `[plugin.media-store]`."""
    registrar.add("media-store", MediaSettings)


@hookimpl
def distconvd_register_routes(registrar: Registrar[RoutesFactory]) -> None:
    """Register the store's routes."""
    registrar.add("media-store", _routes)


def _routes(context: PluginContext) -> list[Route]:
    settings = context.settings("media-store", MediaSettings)
    return MediaStore(context.media_dir, settings).routes()
