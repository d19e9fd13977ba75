"""Open the source of an attempt: a local file or a remote one by proxy.

It is checked before anything is encoded: it has to be whole.

A local file is read where it is; one that is fetched becomes local first. A large remote source is
not stored: `loopback_proxy` reads it for ffmpeg, and every request has to find the same file.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from distconv_engine.attempts.context import Attempt
from distconv_engine.checks.source import (
    CheckedSource,
    check_damaged,
    check_remote,
    check_source,
    check_unchanged,
)
from distconv_engine.failures import InputFault
from distconv_engine.host.disk_space import MB, require_disk_space
from distconv_engine.transfer.destination import is_media_store
from distconv_engine.transfer.download import check_sha256, download, local_path
from distconv_engine.transfer.loopback_proxy import open_relay
from distconv_engine.transfer.range_reader import RangeReader
from distconv_engine.transfer.rate import RateMeter


class Source(Protocol):
    """A source that is open: ffmpeg can read it."""

    async def check(self) -> CheckedSource:
        """Check all of it; raises `InputFault` with what was found when it is not whole."""
        ...

    async def check_unchanged(self, checked: CheckedSource) -> None:
        """Raise `InputFault` when it has changed since it was checked."""
        ...


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file on this machine's disks."""

    attempt: Attempt
    path: Path

    async def check(self) -> CheckedSource:
        """Check the file where it is."""
        is_converted = self.attempt.job.options.on_damage == "convert"
        check = check_damaged if is_converted else check_source
        return await check(self.attempt.ffmpeg, self.path, self.attempt.context.lacking)

    async def check_unchanged(self, checked: CheckedSource) -> None:
        """Compare the file's size, time and number with those of before."""
        check_unchanged(self.path, checked.state)


@dataclass(frozen=True, slots=True)
class ProxiedRemote:
    """A remote file that ffmpeg reads through the loopback proxy."""

    attempt: Attempt
    reader: RangeReader
    url: str
    """The proxy's."""

    async def check(self) -> CheckedSource:
        """Check it through the proxy; raises `NotStreamable` when it has to be fetched for that."""
        return await check_remote(
            self.attempt.ffmpeg,
            self.reader,
            self.url,
            sha256=self.attempt.job.source_sha256,
            on_progress=self.attempt.tracker.part,
            lacking=self.attempt.context.lacking,
        )

    async def check_unchanged(self, checked: CheckedSource) -> None:
        """Ask its server once more."""
        await self.reader.check_unchanged()


def is_large(attempt: Attempt) -> bool:
    """Whether the job is large enough to be streamed, and its source remote.

    A source that may be damaged is stored: what a decoder can do with it has to be known first.
    """
    job, least_mb = attempt.job, attempt.config.stream_min_mb
    remote = job.source_url.lower().startswith(("http://", "https://"))
    is_sound = job.options.on_damage == "refuse"
    return remote and is_sound and 0 < least_mb <= job.job_size


async def open_local(attempt: Attempt) -> LocalFile:
    """Return the source where it is, or fetch it if it is remote."""
    return LocalFile(attempt, await _fetch(attempt))


@asynccontextmanager
async def open_proxied(attempt: Attempt) -> AsyncGenerator[ProxiedRemote]:
    """Open the proxy of the remote source.

    Raises:
        NotStreamable: the source has to be fetched.
    """
    job, config = attempt.job, attempt.config
    require_disk_space(config, (config.work_dir, 0))
    reader = RangeReader(
        _client(attempt),
        job.source_url,
        key=key_for_source(attempt),
        tries=config.fetch_tries,
        rate=RateMeter(config.source_rate_min),
    )
    await reader.open()
    async with open_relay(reader) as relay:
        yield ProxiedRemote(attempt, reader, relay.url)


async def _fetch(attempt: Attempt) -> Path:
    job, config = attempt.job, attempt.config
    if urlsplit(job.source_url).scheme == "file":
        path = local_path(job.source_url, config.source_root)
    else:
        # Space for source and output. The job's size may be wrong; the server's is checked later.
        require_disk_space(config, (config.work_dir, 2 * job.job_size * MB))
        attempt.tracker.phase("fetch")
        path = attempt.folder / "source"
        await download(
            _client(attempt),
            job.source_url,
            path,
            tries=config.fetch_tries,
            rate=RateMeter(config.source_rate_min),
            key=key_for_source(attempt),
            on_total=lambda total, here: require_disk_space(
                config, (config.work_dir, 2 * total - here)
            ),
            on_progress=attempt.tracker.part,
        )
    if job.source_sha256:
        await check_sha256(path, job.source_sha256)
    return path


def _client(attempt: Attempt) -> httpx.AsyncClient:
    in_store = is_media_store(attempt.job.source_url, attempt.config.server)
    return attempt.context.client_for(media_store=in_store)


def key_for_source(attempt: Attempt) -> str | None:
    """Return the API key for a source in the daemon's own media store; nobody else gets it.

    Raises:
        InputFault: the job's submitter may not read there, so neither may the job.
    """
    job, config = attempt.job, attempt.config
    if not is_media_store(job.source_url, config.server):
        return None
    if job.may_read_media is False:
        raise InputFault(
            "The source is in the daemon's media store, which the key that submitted this job may"
            " not read (it lacks the role read)."
        )
    return config.api_key
