"""Attempts of an engine that runs no ffmpeg."""

from pathlib import Path

import httpx

from distconv_engine.attempts.context import Attempt, EngineContext
from distconv_engine.attempts.journal import Journal
from distconv_engine.attempts.progress_tracker import Tracker
from distconv_engine.config import Config
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.host.capabilities import Capabilities
from distconv_engine.logs import Log
from distconvd.model import Job


def make_attempt(job: Job, folder: Path) -> Attempt:
    """Return an attempt that has just begun; `folder` is the engine's work directory, too."""
    log = Log()
    context = EngineContext(
        Config(work_dir=folder),
        "e1",
        Tools("ffmpeg", "ffprobe", "8"),
        Capabilities({}, {}),
        httpx.AsyncClient(),
        Journal(folder / "held", log),
        log,
    )
    return Attempt(context, job, folder, Tracker(), Controls())
