"""Fetch the source: by HTTP into the work directory, or from disk where it is.

A broken download continues where it stopped (Range), if it is still the same file (If-Range with
the strong ETag or the date of the first reply); otherwise it starts again. A source that cannot be
fetched whole is an `input` failure if its server cut it short, and `transient` if the server was
unavailable.
"""

import os
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import unquote_to_bytes, urlsplit

import httpx
import trio

from distconv_engine.backoff import Backoff
from distconv_engine.failures import InputFault, InsufficientSpace, NoAccess, NotAllowedHere
from distconv_engine.files import describe_fault, hash_file, is_full
from distconv_engine.transfer.guard import source_at
from distconv_engine.transfer.rate import RateMeter
from distconv_engine.transfer.remote import BAD_URL, TIMEOUT, RemoteFile, TryAgain, bad_url, begin

CHUNK_BYTES = 1 << 20


def local_path(url: str, roots: Sequence[Path]) -> Path:
    """Return the file that a `file://` URL names, inside one of `roots`; links are followed first.

    Raises:
        NotAllowedHere: it lies outside of what this engine may read (another may).
        NoAccess: there is no such file here; its share may be missing on this engine only.
        InputFault: it is not a regular file.
    """
    path = _path_of(url)
    if not roots:
        raise NotAllowedHere(
            "This engine reads no file:// sources: it has no --source-root. Start it with"
            " --source-root DIR, or submit the source as an http(s) URL."
        )
    resolved = Path(os.path.realpath(path))
    if not is_inside(resolved, roots):
        raise NotAllowedHere(
            f"This engine may not read {path}: it is outside of its --source-root. Start it with"
            " one that contains the file, or submit the source as an http(s) URL."
        )
    try:
        mode = resolved.stat().st_mode
    except OSError as error:
        raise NoAccess(f"The source cannot be read: {error.strerror}: {path}") from error
    if not stat.S_ISREG(mode):
        raise InputFault(f"The source is not a regular file: {path}")
    return resolved


def is_inside(path: Path, roots: Sequence[Path]) -> bool:
    """Whether `path`, with its links followed, lies in one of `roots`."""
    return any(path.is_relative_to(Path(os.path.realpath(root))) for root in roots)


def decoded_path(url: str) -> str:
    """Return the path in a `file://` URL; a name is bytes, and need not be UTF-8."""
    return os.fsdecode(unquote_to_bytes(urlsplit(url).path))


def _path_of(url: str) -> Path:
    parts, path = urlsplit(url), decoded_path(url)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise InputFault(f"A file:// source must have an absolute path and no host, not {url}.")
    return Path(path)


async def download(
    client: httpx.AsyncClient,
    url: str,
    path: Path,
    *,
    tries: int,
    key: str | None = None,
    rate: RateMeter | None = None,
    on_total: Callable[[int, int], None],
    on_progress: Callable[[float], None],
) -> None:
    """Get `url` into `path`.

    Args:
        client: an HTTP client that follows redirects.
        url: what to get.
        path: where to put it.
        key: the API key, for the daemon's own media store only; it follows no redirect.
        tries: how many tries in a row may get no further before it fails.
        rate: gives up a server that sends too slowly.
        on_total: called again and again with the size, or while it is unknown with what it is at least,
            and how much of it is here; may raise to reject it.
        on_progress: called with the completed part, 0 to 1.
    """
    state, backoff, failures = RemoteFile(url, key), Backoff(0.2, 10.0), 0
    rate = rate or RateMeter()
    while True:
        reached = state.best
        try:
            await _one_try(client, state, path, rate, on_total, on_progress)
            return
        except BAD_URL as error:
            raise bad_url(error) from error
        except (httpx.TransportError, TryAgain) as error:
            failures = 0 if state.best > reached else failures + 1
            if failures >= tries:
                raise state.given_up(tries, describe_fault(error)) from error
        except OSError as error:
            if is_full(error):
                raise InsufficientSpace("The engine's disk is full.") from error
            raise
        with rate.waiting():
            await trio.sleep(backoff.next_s() if state.best == reached else 0)


async def _one_try(
    client: httpx.AsyncClient,
    state: RemoteFile,
    path: Path,
    rate: RateMeter,
    on_total: Callable[[int, int], None],
    on_progress: Callable[[float], None],
) -> None:
    stream = client.stream(
        "GET",
        state.url,
        headers=state.headers(),
        timeout=TIMEOUT,
        follow_redirects=not state.key,
        extensions=source_at(state.url),
    )
    async with rate.opened(stream) as response:
        begin(state, response)
        if state.total is not None:
            on_total(state.total, state.written)
        with path.open("r+b" if state.written else "wb") as file:
            file.seek(state.written)
            file.truncate()
            async with rate.pieces(response) as body:
                await _receive(state, body, file, on_total, on_progress)
    if state.total is not None and state.written < state.total:
        raise TryAgain("it closed the connection early")


async def _receive(
    state: RemoteFile,
    body: AsyncIterator[bytes],
    file: IO[bytes],
    on_total: Callable[[int, int], None],
    on_progress: Callable[[float], None],
) -> None:
    """Write the body as it arrives; what arrived before a break is kept for the next try."""
    waiting = bytearray()
    try:
        async for piece in body:
            waiting += piece
            if len(waiting) >= CHUNK_BYTES:
                # The disk has others to fill it, too, and a size may be unknown or untrue.
                on_total(state.total or state.written + len(waiting), state.written)
                await trio.to_thread.run_sync(_write, state, file, waiting)
                on_progress(state.written / state.total if state.total else 0.0)
    finally:
        _write(state, file, waiting)
    on_progress(1.0)


def _write(state: RemoteFile, file: IO[bytes], waiting: bytearray) -> None:
    file.write(waiting)
    file.flush()
    state.advance(len(waiting))
    waiting.clear()


async def check_sha256(path: Path, wanted: str) -> None:
    """Raise `InputFault` if the file does not have the digest that the job gives."""
    digest, _ = await trio.to_thread.run_sync(hash_file, path)
    if digest != wanted.lower():
        raise InputFault(f"The source has SHA-256 {digest}, but the job expects {wanted.lower()}.")
