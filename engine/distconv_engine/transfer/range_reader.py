"""Read any part of a remote file at any time, as if it were on a disk.

Streaming needs of a source's server its size, ranges, and an ETag or date that reveals a change;
this is checked first. A server without one of these is no fault: its file is downloaded instead.
"""

import hashlib
import io
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import httpx
import trio
from trio.lowlevel import checkpoint

from distconv_engine.backoff import Backoff
from distconv_engine.failures import InputFault, TransientFault
from distconv_engine.files import describe_fault
from distconv_engine.media.zero_runs import ZeroRunFinder, ZeroRuns
from distconv_engine.transfer.guard import source_at
from distconv_engine.transfer.rate import RateMeter
from distconv_engine.transfer.remote import BAD_URL, TIMEOUT, RemoteFile, TryAgain, bad_url, begin

Sink = Callable[[bytes], Awaitable[None]]
BLOCK_BYTES = 1 << 21
"""The most that one request reads."""
BUFFER_BYTES = 1 << 16


class NotStreamable(Exception):
    """The source has to be downloaded; the message says why."""


class RangeReader:
    """One remote file, the same from the first byte to the last check.

    Args:
        client: an HTTP client.
        url: of the file.
        key: the API key, for the daemon's own media store only; it follows no redirect.
        tries: how many tries in a row may get no further before it fails.
        rate: gives up a server that sends too slowly.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        *,
        key: str | None,
        tries: int,
        rate: RateMeter | None = None,
    ) -> None:
        self.size_bytes = 0
        self._client = client
        self._url = url
        self._key = key
        self._tries = tries
        self._rate = rate or RateMeter()
        self._validator: str | None = None
        self._was_read_whole = False

    async def open(self) -> None:
        """Request the first byte; raises `NotStreamable`, or the failure that the server shows."""
        state = RemoteFile(self._url, self._key)
        ranged = False

        async def try_once() -> None:
            nonlocal ranged
            async with self._request(state, 1) as response:
                begin(state, response)
                ranged = response.status_code == 206

        await self._with_retries(state, try_once)
        if not ranged or state.total is None:
            raise NotStreamable("its server sends no ranges")
        if state.validator is None:
            raise NotStreamable("its server gives neither a strong ETag nor a date")
        if state.total == 0:
            raise InputFault("The source is empty: 0 bytes.")
        self.size_bytes, self._validator = state.total, state.validator

    async def copy(self, start: int, stop: int, sink: Sink) -> None:
        """Pass the bytes from `start` to before `stop` to `sink`.

        Raises:
            InputFault: it breaks off, or it is another file now.
            TransientFault: its server is unavailable.
        """
        state = RemoteFile(self._url, self._key, start, self.size_bytes, self._validator)
        while state.written < stop:
            for piece in await self._block(state, min(stop, state.written + BLOCK_BYTES)):
                await sink(piece)

    async def _block(self, state: RemoteFile, stop: int) -> list[bytes]:
        """Return the bytes up to `stop`, and leave the state there.

        A block at a time: the connection is free again before the bytes are processed, so a slow or
        absent reader keeps none open, and a seek discards no more than one block.
        """
        pieces: list[bytes] = []

        async def try_once() -> None:
            at = state.written
            async with self._request(state, stop) as response:
                begin(state, response)
                if response.status_code != 206:
                    state.written = at
                    raise TryAgain("it ignored the range")
                async with self._rate.pieces(response) as body:
                    async for piece in body:
                        pieces.append(piece[: stop - state.written])
                        state.advance(len(pieces[-1]))
            if state.written < stop:
                raise TryAgain("it closed the connection early")

        await self._with_retries(state, try_once)
        return pieces

    async def read_whole(self, on_progress: Callable[[float], None]) -> tuple[ZeroRuns, str]:
        """Read it once from end to end; returns its runs of zero bytes and its SHA-256."""
        zero_runs, digest, received_bytes = ZeroRunFinder(), hashlib.sha256(), 0

        async def take(piece: bytes) -> None:
            nonlocal received_bytes
            digest.update(piece)
            zero_runs.feed(piece)
            received_bytes += len(piece)
            on_progress(received_bytes / self.size_bytes)
            await checkpoint()

        await self.copy(0, self.size_bytes, take)
        self._was_read_whole = True
        return zero_runs.close(), digest.hexdigest()

    async def check_unchanged(self) -> None:
        """Raise `InputFault` if the server has another file now."""

        async def drop(_: bytes) -> None:
            await checkpoint()

        await self.copy(self.size_bytes - 1, self.size_bytes, drop)

    def as_file(self) -> io.BufferedReader:
        """Return it as a file, to be read in a worker thread of trio."""
        return io.BufferedReader(_RawRanges(self), BUFFER_BYTES)

    def _request(self, state: RemoteFile, stop: int) -> AbstractAsyncContextManager[httpx.Response]:
        stream = self._client.stream(
            "GET",
            self._url,
            headers=state.headers(stop),
            timeout=TIMEOUT,
            follow_redirects=not self._key,
            extensions=source_at(self._url),
        )
        return self._rate.opened(stream)

    async def _with_retries(
        self, state: RemoteFile, try_once: Callable[[], Awaitable[None]]
    ) -> None:
        backoff, failures = Backoff(0.2, 10.0), 0
        while True:
            reached = state.written
            try:
                await try_once()
                return
            except BAD_URL as error:
                raise bad_url(error) from error
            except (httpx.TransportError, TryAgain) as error:
                failures = 0 if state.written > reached else failures + 1
                if failures >= self._tries:
                    raise self._given_up(state, describe_fault(error)) from error
            with self._rate.waiting():
                await trio.sleep(backoff.next_s() if state.written == reached else 0)

    def _given_up(self, state: RemoteFile, reason: str) -> InputFault | TransientFault:
        if self._was_read_whole:  # all of it arrived before, so the server is at fault
            return TransientFault(
                f"The source's server became unavailable during the job: {reason}"
            )
        return state.given_up(self._tries, reason)


class _RawRanges(io.RawIOBase):
    """The blocking, seekable side of a `RangeReader`, for a worker thread of trio."""

    def __init__(self, reader: RangeReader) -> None:
        self._reader = reader
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._reader.size_bytes}
        self._at = max(0, base[whence] + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override] # what it gets
        stop = min(self._at + len(buffer), self._reader.size_bytes)
        found = bytearray()

        async def keep(piece: bytes) -> None:
            found.extend(piece)
            await checkpoint()

        if stop > self._at:
            trio.from_thread.run(self._reader.copy, self._at, stop, keep)
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
