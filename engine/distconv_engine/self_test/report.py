"""Report what an engine on this machine would have to work with.

`python -m distconv_engine.self_test.report` prints one line of JSON for `distconv doctor`, which uses
nothing else of this package: which ffmpeg, which encoders really encode, which kinds of sources it
converts, where the work directory is and how much space it has. The settings are the engine's own, from variables and the file. A
fault is a value (`error`), so the exit code is 0.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import httpx
import msgspec
import trio

from distconv_engine import __version__
from distconv_engine.attempts.context import EngineContext
from distconv_engine.attempts.journal import Journal
from distconv_engine.config import Config, load_config
from distconv_engine.errors import ConfigError
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools, find_tools
from distconv_engine.files import describe_fault
from distconv_engine.host.capabilities import Capabilities, verify_encoders
from distconv_engine.logs import Log
from distconv_engine.media.ffmpeg import Ffmpeg
from distconv_engine.self_test.outcome import FILE, Outcome
from distconv_engine.self_test.run import self_test
from distconvd.model import describe_capability


class Report(msgspec.Struct, omit_defaults=True):
    """The findings; sizes in MB of 10^6 bytes."""

    error: str | None = None
    ffmpeg: str | None = None
    version: str | None = None
    encoders: dict[str, str] = {}
    """The best verified encoder of each codec."""
    lacks: dict[str, str] = {}
    """The capabilities whose test clips were not converted, each with the reason."""
    work_dir: str | None = None
    free_mb: float | None = None
    reserve_mb: float | None = None


def report() -> Report:
    """Return what an engine that is started here would find."""
    found = Report()
    try:
        config = load_config([], os.environ, __version__).config
        _check_disk_space(found, config)
        tools = find_tools(config.ffmpeg, hardware=config.hardware == "prefer")
    except (ConfigError, OSError) as error:
        found.error = describe_fault(error)
        return found
    found.ffmpeg, found.version = tools.ffmpeg, tools.version
    capabilities, outcome = trio.run(_test, config, tools)
    found.lacks = {describe_capability(name): text for name, text in outcome.failed.items()}
    found.encoders = {
        codec: capabilities.encoders(codec)[0].encoder.name for codec in capabilities.codecs
    }
    return found


def _check_disk_space(found: Report, config: Config) -> None:
    """Note the free space for the work directory, which an engine creates when it starts."""
    found.work_dir, found.reserve_mb = str(config.work_dir), config.disk_reserve_mb
    there = next(p for p in (config.work_dir, *config.work_dir.parents) if p.is_dir())
    found.free_mb = round(shutil.disk_usage(there).free / 1e6, 1)


async def _test(config: Config, tools: Tools) -> tuple[Capabilities, Outcome]:
    """Verify the encoders, and convert a clip of each kind unless the engine has done so."""
    log = Log()
    with tempfile.TemporaryDirectory(prefix="distconv-selftest-") as scratch:
        folder = Path(scratch)
        ffmpeg = Ffmpeg(tools, Controls())
        hardware = config.hardware == "prefer"
        capabilities = await verify_encoders(ffmpeg, folder, hardware=hardware)
        if not capabilities.codecs:
            return capabilities, Outcome("")
        work = config.work_dir if os.access(config.work_dir, os.W_OK) else folder
        async with httpx.AsyncClient() as client:
            journal = Journal(folder / "held", log)
            context = EngineContext(config, "doctor", tools, capabilities, client, journal, log)
            return capabilities, await self_test(context, folder / "clips", work / FILE)


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(report()).decode() + "\n")
