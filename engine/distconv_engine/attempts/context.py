"""Define an attempt, and the context that all attempts of an engine share."""

from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trio

from distconv_engine.attempts.journal import Journal, JournalEntry
from distconv_engine.attempts.progress_tracker import Tracker
from distconv_engine.config import Config
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.files import safe_name
from distconv_engine.host.capabilities import Capabilities
from distconv_engine.host.disk_backoff import SpaceBackoff
from distconv_engine.logs import Log
from distconv_engine.media.ffmpeg import Ffmpeg
from distconvd.model import Capability, Job


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What all attempts of an engine share."""

    config: Config
    engine_id: str
    tools: Tools
    capabilities: Capabilities
    client: httpx.AsyncClient
    """For sources and outputs; it checks their hosts."""
    journal: Journal
    log: Log
    space_backoff: SpaceBackoff = field(default_factory=lambda: SpaceBackoff(0.0))
    daemon_client: httpx.AsyncClient | None = None
    """For the daemon's own media store; None: `client`."""
    lacking: frozenset[Capability] = frozenset()
    """The capabilities that the self-test did not find."""

    def client_for(self, *, media_store: bool) -> httpx.AsyncClient:
        """Return the client for a place: the daemon's media store, or anywhere else."""
        return (self.daemon_client or self.client) if media_store else self.client


@dataclass(slots=True)
class Attempt:
    """One running attempt. Everything that works on it gets this alone."""

    context: EngineContext
    job: Job
    folder: Path
    tracker: Tracker
    controls: Controls
    _recording: trio.Lock = field(default_factory=trio.Lock)
    """Two entries are written in the order in which they were asked for."""

    @property
    def config(self) -> Config:
        """The engine's settings."""
        return self.context.config

    @property
    def ffmpeg(self) -> Ffmpeg:
        """The engine's ffmpeg, under this attempt's controls."""
        return Ffmpeg(self.context.tools, self.controls)

    @property
    def log(self) -> Log:
        """The engine's log; each line names the attempt."""
        return self.context.log.bind(job_id=self.job.job_id, attempt=self.job.attempt)

    @property
    def token(self) -> str:
        """A part of the names of this attempt's temporary files, different for every attempt."""
        return token_of(self.job)

    def journal_entry(self, *partials: Path) -> JournalEntry:
        """Return the journal's entry for this attempt, with its partial files outside its folder."""
        folder, names = str(self.folder), [str(path) for path in partials]
        return JournalEntry(self.job.job_id, self.job.attempt, folder, names)

    async def record(self, *partials: Path) -> None:
        """Record this attempt durably, before a partial file is written outside of its folder."""
        entry = self.journal_entry(*partials)
        async with self._recording:
            await trio.to_thread.run_sync(self.context.journal.record, entry)


def token_of(job: Job) -> str:
    """Return a file name that only this attempt of this job has."""
    return f"{safe_name(job.job_id)}.{job.attempt}"
