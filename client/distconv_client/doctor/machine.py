"""Checks of this machine: ffmpeg and its encoders, and room on the disk.

The engine is asked by running it, not by importing it: a client's machine need not have it, and what
holds for a process that was started here is what counts. It is asked under the settings that the unit
of an installed engine starts it with.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from distconv_client import text
from distconv_client.doctor.finding import Finding, fail, ok, skip

PACKAGE = "distconv_engine"
SELFTEST_S_MAX = 120.0
ROOM_MB = 100.0
"""A client needs next to nothing; below this other things break, too."""
USUAL = ("h264", "hevc", "vp8", "vp9", "av1")
UNIT_CONFIG = Path("/etc/distconv/engine.toml")
UNIT_WORK_DIR = Path("/var/lib/distconv-engine")
"""Each engine of `distconv-engine@.service` has its work directory in this one."""
_INSTALL = "pip install 'distconv[engine]' brings one; DISTCONV_FFMPEG=system takes the system's."


class EngineReport(msgspec.Struct, frozen=True):
    """What `distconv_engine.selftest` prints."""

    error: str | None = None
    ffmpeg: str | None = None
    version: str | None = None
    encoders: dict[str, str] = {}
    work_dir: str | None = None
    free_mb: float | None = None
    reserve_mb: float | None = None


def ask_engine(work_dir: Path | None = None) -> EngineReport | None:
    """Return what an engine here would find; None where the package is not installed.

    Args:
        work_dir: its work directory; None: the one that variables, its file or its unit name.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        return None
    argv = [sys.executable, "-m", f"{PACKAGE}.selftest"]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            timeout=SELFTEST_S_MAX,
            check=False,
            env=_as_the_unit(os.environ, work_dir),
        )
    except subprocess.TimeoutExpired:
        return EngineReport(error=f"the test encodes took longer than {SELFTEST_S_MAX:g} s")
    try:
        return msgspec.json.decode(done.stdout, type=EngineReport)
    except msgspec.DecodeError:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return EngineReport(error=f"the engine package does not run: {last}")


def check_ffmpeg(report: EngineReport | None) -> Finding:
    """Whether ffmpeg runs here and really encodes."""
    if report is None:
        return skip("ffmpeg", "no engine is installed here")
    if report.error is not None:
        return fail("ffmpeg", text.clean(report.error), _INSTALL)
    where = f"{report.version} at {report.ffmpeg}"
    if not report.encoders:
        return fail("ffmpeg", text.clean(f"{where} encodes none of {', '.join(USUAL)}"), _INSTALL)
    made = ", ".join(f"{codec} by {encoder}" for codec, encoder in report.encoders.items())
    lacking = [codec for codec in USUAL if codec not in report.encoders]
    without = f"; it cannot make {', '.join(lacking)}" if lacking else ""
    return ok("ffmpeg", text.clean(f"{where} makes {made}{without}"))


def check_disk(
    report: EngineReport | None,
    work_dir: Path | None = None,
    free_mb: Callable[[Path], float] | None = None,
) -> Finding:
    """Whether there is room: for an engine in its work directory, else for temporary files.

    Args:
        report: what the engine found.
        work_dir: the folder that was named to us, for where no engine is installed.
        free_mb: replaces the look at the disk, for tests.
    """
    if report is not None and report.work_dir is not None:
        return _room_of_engine(report, report.work_dir)
    if report is not None and work_dir is None:
        return skip("disk", "where the engine works is not known; name it with --work-dir DIR")
    folder = work_dir or Path(tempfile.gettempdir())
    remedy = f"Make room there{'' if work_dir else ', or name another place with TMPDIR'}."
    return _judged(folder, (free_mb or _free_mb)(folder), ROOM_MB, remedy)


def _room_of_engine(report: EngineReport, work_dir: str) -> Finding:
    folder = Path(work_dir)
    if not os.path.isdir(folder):
        # The engine makes every name of a folder absolute that somebody gave it, and no other.
        if not folder.is_absolute():
            told = "no engine has worked in this folder; name an engine's with --work-dir DIR"
            return skip("disk", told)
        remedy = "An engine makes it when it starts; name the engine's own with --work-dir DIR."
        return fail("disk", text.clean(f"there is no folder {work_dir} to be seen"), remedy)
    remedy = "Below its reserve an engine takes no job: make room, or give it another --work-dir."
    free = _free_mb(folder) if report.free_mb is None else report.free_mb
    return _judged(folder, free, report.reserve_mb or ROOM_MB, remedy)


def _judged(folder: Path, free_mb: float, needed_mb: float, remedy: str) -> Finding:
    told = text.clean(f"{text.size(free_mb * 1e6)} free in {folder}")
    if free_mb >= needed_mb:
        return ok("disk", told)
    return fail("disk", f"{told}, {text.size(needed_mb * 1e6)} needed", remedy)


def _as_the_unit(environ: Mapping[str, str], work_dir: Path | None) -> dict[str, str]:
    """Return the variables under which an engine here finds the settings that it works with."""
    found = dict(environ)
    if "DISTCONV_CONFIG" not in found and os.access(UNIT_CONFIG, os.R_OK):
        found["DISTCONV_CONFIG"] = str(UNIT_CONFIG)
    if work_dir is not None:
        found["DISTCONV_WORK_DIR"] = str(work_dir.absolute())
    elif "DISTCONV_CONFIG" not in environ and UNIT_WORK_DIR.is_dir():
        # The unit's flag goes over the file, as a variable does.
        found.setdefault("DISTCONV_WORK_DIR", str(UNIT_WORK_DIR))
    return found


def _free_mb(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 1e6
