"""Checks of this machine: ffmpeg and its encoders, and room on the disk.

The engine is asked by running it, not by importing it: a client's machine need not have it, and what
holds for a process that was started here is what counts.
"""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from distconv_client import text
from distconv_client.doctor.finding import Finding, fail, ok, skip

PACKAGE = "distconv_engine"
SELFTEST_S_MAX = 120.0
ROOM_MB = 100.0
"""A client needs next to nothing; below this other things break, too."""
USUAL = ("h264", "hevc", "vp8", "vp9", "av1")
_INSTALL = "Install one (apt install ffmpeg), or pip install 'distconv[engine]', which brings one."


class EngineReport(msgspec.Struct, frozen=True):
    """What `distconv_engine.selftest` prints."""

    error: str | None = None
    ffmpeg: str | None = None
    version: str | None = None
    encoders: dict[str, str] = {}
    work_dir: str | None = None
    free_mb: float | None = None
    reserve_mb: float | None = None


def ask_engine() -> EngineReport | None:
    """Return what an engine here would find; None where the package is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        return None
    argv = [sys.executable, "-m", f"{PACKAGE}.selftest"]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=SELFTEST_S_MAX, check=False)
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
    report: EngineReport | None, free_mb: Callable[[Path], float] | None = None
) -> Finding:
    """Whether there is room: for an engine in its work directory, else for temporary files."""
    if report is not None and report.free_mb is not None and report.work_dir is not None:
        place, free, needed = report.work_dir, report.free_mb, report.reserve_mb or ROOM_MB
        remedy = (
            "Below its reserve an engine takes no job: make room, or give it another --work-dir."
        )
    else:
        folder = Path(tempfile.gettempdir())
        place, needed = str(folder), ROOM_MB
        free = (free_mb or _free_mb)(folder)
        remedy = "Make room there, or name another place with TMPDIR."
    told = text.clean(f"{text.size(free * 1e6)} free in {place}")
    if free >= needed:
        return ok("disk", told)
    return fail("disk", f"{told}, {text.size(needed * 1e6)} needed", remedy)


def _free_mb(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 1e6
