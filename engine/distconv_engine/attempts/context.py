"""Define an attempt, and the context that all attempts of an engine share."""

from dataclasses import dataclass, field
from pathlib import Path

import httpx

from distconv_engine.attempts.journal import Journal, JournalEntry
from distconv_engine.attempts.progress_tracker import Tracker
from distconv_engine.config import Config
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.files import safe_name
from distconv_engine.host.capabilities import Capabilities
from distconv_engine.host.disk_backoff import SpaceBackoff
from distconv_engine.logs import Log
from distconvd.model import Job


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What all attempts of an engine share."""

    config: Config
    engine_id: str
    tools: Tools
    capabilities: Capabilities
    client: httpx.AsyncClient
    journal: Journal
    log: Log
    space_backoff: SpaceBackoff = field(default_factory=lambda: SpaceBackoff(0.0))


@dataclass(slots=True)
class Attempt:
    """One running attempt."""

    job: Job
    folder: Path
    tracker: Tracker
    controls: Controls

    @property
    def token(self) -> str:
        """A part of the names of this attempt's temporary files, different for every attempt."""
        return token_of(self.job)


def token_of(job: Job) -> str:
    """Return a file name that only this attempt of this job has."""
    return f"{safe_name(job.job_id)}.{job.attempt}"


def journal_entry_of(attempt: Attempt, *partials: Path) -> JournalEntry:
    """Return the journal's entry for an attempt."""
    folder, names = str(attempt.folder), [str(path) for path in partials]
    return JournalEntry(attempt.job.job_id, attempt.job.attempt, folder, names)
