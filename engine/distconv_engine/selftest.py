"""Report what an engine on this machine would have to work with.

`python -m distconv_engine.selftest` prints one line of JSON for `distconv doctor`, which uses
nothing else of this package: which ffmpeg, which encoders really encode, where the work directory
is and how much space it has. The settings are the engine's own, from variables and the file. A
fault is a value (`error`), so the exit code is 0.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec
import trio

from distconv_engine import __version__
from distconv_engine.config import Config, load_config
from distconv_engine.errors import ConfigError
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools, find_tools
from distconv_engine.files import describe_fault
from distconv_engine.host.capabilities import Capabilities, verify_encoders
from distconv_engine.media.ffmpeg import Ffmpeg


class Report(msgspec.Struct, omit_defaults=True):
    """The findings; sizes in MB of 10^6 bytes."""

    error: str | None = None
    ffmpeg: str | None = None
    version: str | None = None
    encoders: dict[str, str] = {}
    """The best verified encoder of each codec."""
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
    capabilities = trio.run(_verify_encoders, config, tools)
    found.encoders = {
        codec: capabilities.encoders(codec)[0].encoder.name for codec in capabilities.codecs
    }
    return found


def _check_disk_space(found: Report, config: Config) -> None:
    """Note the free space for the work directory, which an engine creates when it starts."""
    found.work_dir, found.reserve_mb = str(config.work_dir), config.disk_reserve_mb
    there = next(p for p in (config.work_dir, *config.work_dir.parents) if p.is_dir())
    found.free_mb = round(shutil.disk_usage(there).free / 1e6, 1)


async def _verify_encoders(config: Config, tools: Tools) -> Capabilities:
    with tempfile.TemporaryDirectory(prefix="distconv-selftest-") as folder:
        return await verify_encoders(
            Ffmpeg(tools, Controls()), Path(folder), hardware=config.hardware == "prefer"
        )


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(report()).decode() + "\n")
