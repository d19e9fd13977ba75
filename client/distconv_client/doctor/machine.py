"""Check this machine: ffmpeg and its encoders, and the free disk space.

The engine's self-test runs as a process and is not imported: a client's machine need not have the
engine, and what matters is what works in a process started here. It gets the settings with which the
unit of an installed engine starts it.
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

from distconv_client.display import text
from distconv_client.doctor.finding import Finding, fail, ok, skip
from distconvd.model import CODECS

PACKAGE = "distconv_engine"
SELFTEST_S_MAX = 120.0
FREE_MB_MIN = 100.0
"""A client needs almost nothing; below this, other programs fail, too."""
UNIT_CONFIG = Path("/etc/distconv/engine.toml")
UNIT_WORK_DIR = Path("/var/lib/distconv-engine")
"""Each engine of `distconv-engine@.service` has its work directory below this one."""
_INSTALL = (
    "pip install 'distconv[engine]' includes an ffmpeg; DISTCONV_FFMPEG=system uses the system's."
)

_OTHER_FFMPEG = "Jobs with such sources go to other engines. To do them here, use the bundled ffmpeg: leave out --ffmpeg."


class EngineReport(msgspec.Struct, frozen=True):
    """The output of `distconv_engine.self_test.report`."""

    error: str | None = None
    ffmpeg: str | None = None
    version: str | None = None
    encoders: dict[str, str] = {}
    work_dir: str | None = None
    free_mb: float | None = None
    reserve_mb: float | None = None
    lacks: dict[str, str] = {}
    """The kinds of sources that it did not convert, each with the reason."""


def ask_engine(work_dir: Path | None = None) -> EngineReport | None:
    """Return what an engine would find here; None if the package is not installed.

    Args:
        work_dir: its work directory; None: that of its environment, file or unit.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        return None
    argv = [sys.executable, "-m", f"{PACKAGE}.self_test.report"]
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
    """Check that ffmpeg runs here and really encodes."""
    if report is None:
        return skip("ffmpeg", "no engine is installed here")
    if report.error is not None:
        return fail("ffmpeg", text.clean(report.error), _INSTALL)
    where = f"{report.version} at {report.ffmpeg}"
    if not report.encoders:
        return fail("ffmpeg", text.clean(f"{where} encodes none of {', '.join(CODECS)}"), _INSTALL)
    made = ", ".join(f"{codec} with {encoder}" for codec, encoder in report.encoders.items())
    lacking = [codec for codec in CODECS if codec not in report.encoders]
    without = f"; it cannot encode {', '.join(lacking)}" if lacking else ""
    detail = f"{where} encodes {made}{without}"
    if report.lacks:
        failed = "; ".join(f"{kind}: {reason}" for kind, reason in report.lacks.items())
        return fail("ffmpeg", text.clean(f"{detail}; its test failed with {failed}"), _OTHER_FFMPEG)
    return ok("ffmpeg", text.clean(detail))


def check_disk(
    report: EngineReport | None,
    work_dir: Path | None = None,
    free_mb: Callable[[Path], float] | None = None,
) -> Finding:
    """Check the free disk space: of an engine's work directory, else for temporary files.

    Args:
        report: the output of the engine's self-test.
        work_dir: the directory of --work-dir, which counts if no engine is installed.
        free_mb: measures the free space; tests replace it.
    """
    if report is not None and report.work_dir is not None:
        return _disk_space_of_engine(report, report.work_dir)
    if report is not None and work_dir is None:
        return skip("disk", "the engine's work directory is not known; name it with --work-dir DIR")
    folder = work_dir or Path(tempfile.gettempdir())
    remedy = f"Free some space{'' if work_dir else ', or set TMPDIR to another directory'}."
    return _finding(folder, (free_mb or _free_mb)(folder), FREE_MB_MIN, remedy)


def _disk_space_of_engine(report: EngineReport, work_dir: str) -> Finding:
    folder = Path(work_dir)
    if not os.path.isdir(folder):
        # A relative path is the default: the engine makes every configured path absolute.
        if not folder.is_absolute():
            detail = "no engine has worked in the current directory; name its directory with --work-dir DIR"
            return skip("disk", detail)
        remedy = "An engine creates it when it starts; name the right one with --work-dir DIR."
        return fail(
            "disk",
            text.clean(f"the directory {work_dir} does not exist, or is not visible to you"),
            remedy,
        )
    remedy = (
        "Below its reserve an engine accepts no jobs: free some space, or change its --work-dir."
    )
    free = _free_mb(folder) if report.free_mb is None else report.free_mb
    return _finding(folder, free, report.reserve_mb or FREE_MB_MIN, remedy)


def _finding(folder: Path, free_mb: float, needed_mb: float, remedy: str) -> Finding:
    detail = text.clean(f"{text.size(free_mb * 1e6)} free in {folder}")
    if free_mb >= needed_mb:
        return ok("disk", detail)
    return fail("disk", f"{detail}, {text.size(needed_mb * 1e6)} needed", remedy)


def _as_the_unit(environ: Mapping[str, str], work_dir: Path | None) -> dict[str, str]:
    """Return the environment with which an engine here uses its unit's settings."""
    found = dict(environ)
    if "DISTCONV_CONFIG" not in found and os.access(UNIT_CONFIG, os.R_OK):
        found["DISTCONV_CONFIG"] = str(UNIT_CONFIG)
    if work_dir is not None:
        found["DISTCONV_WORK_DIR"] = str(work_dir.absolute())
    elif "DISTCONV_CONFIG" not in environ and UNIT_WORK_DIR.is_dir():
        # The unit's flag overrides the file, and so does a variable.
        found.setdefault("DISTCONV_WORK_DIR", str(UNIT_WORK_DIR))
    return found


def _free_mb(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 1e6
