"""Run all tests in parallel, then those that need the machine to themselves.

`make test` calls this. A test with the marker `alone` measures time, counts descriptors or loads the
whole machine; it runs in a second, serial pytest, after the parallel one has ended. Both parts run
even if the first has failures, and the last line gives one total. What the tests make once a run (clips,
verified encoders) is in a folder that both parts share.

    python tools/run_tests.py [-m MARKERS] [ARGUMENTS OF PYTEST ...]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
WORKERS_MAX = 8
FOLDER_VARIABLE = "DISTCONV_TEST_RUN_FOLDER"
"""The folder of what is made once a run; `tests/once.py` reads it."""
NO_TESTS = 5
"""Pytest's exit code when it finds no test: a part may be empty."""
INTERRUPTED = 2
OUTCOMES: tuple[str, ...] = ("failed", "passed", "skipped", "errors")


@dataclass(frozen=True)
class Part:
    """How one part of the tests ended."""

    name: str
    code: int
    counts: dict[str, int]

    @property
    def total(self) -> int:
        """The number of tests."""
        return sum(self.counts.values())


def workers() -> int:
    """Return how many tests to run at the same time: many of them wait for a child process."""
    return min((os.cpu_count() or 1) + 1, WORKERS_MAX)


def parts(markers: str) -> dict[str, list[str]]:
    """Return the arguments of each part, by its name."""
    selected = f"({markers}) and " if markers else ""
    number = workers()
    return {
        f"in parallel by {number}": [
            *("-m", f"{selected}not alone"),
            *(f"--numprocesses={number}", "--dist=worksteal"),
        ],
        "alone": ["-m", f"{selected}alone"],
    }


def run_part(name: str, arguments: Sequence[str], folder: Path) -> Part:
    """Run pytest; its output goes where ours goes."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "pytest", f"--junitxml={report}", *arguments]
    environ = {**os.environ, FOLDER_VARIABLE: str(folder)}
    process = subprocess.Popen(argv, cwd=ROOT, env=environ)
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:
            continue  # pytest was interrupted as well, and ends
    return Part(name, code, counts_in(report))


def counts_in(report: Path) -> dict[str, int]:
    """Return how many tests had each outcome, from a JUnit report; zeros if there is none."""
    counts: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
    if report.exists():
        for suite in ElementTree.parse(report).iter("testsuite"):  # noqa: S314 - pytest wrote it
            counts["failed"] += int(suite.get("failures", 0))
            counts["errors"] += int(suite.get("errors", 0))
            counts["skipped"] += int(suite.get("skipped", 0))
            counts["passed"] += int(suite.get("tests", 0))
    counts["passed"] -= counts["failed"] + counts["errors"] + counts["skipped"]
    return counts


def exit_code(ran: Sequence[Part]) -> int:
    """Return 0 only if every part passed and there was a test at all."""
    codes = [part.code for part in ran if part.code != NO_TESTS]
    return next((code for code in codes if code), 0) if codes else NO_TESTS


def summary(ran: Sequence[Part], took_s: float) -> str:
    """Return the last line: the total of all parts."""
    counts = {outcome: sum(part.counts[outcome] for part in ran) for outcome in OUTCOMES}
    shown = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    split = ", ".join(f"{part.total} {part.name}" for part in ran)
    minutes, seconds = divmod(round(took_s), 60)
    verdict = "" if exit_code(ran) == 0 else "NOT PASSED: "
    return f"=== {verdict}{shown or 'no tests'} in {minutes}:{seconds:02} min ({split}) ==="


def main() -> int:
    """Run both parts and print the total."""
    parser = argparse.ArgumentParser(description="Run all tests.")
    parser.add_argument("-m", dest="markers", default="", help="only tests with these markers")
    chosen, rest = parser.parse_known_args()
    began_s = time.monotonic()
    ran: list[Part] = []
    with tempfile.TemporaryDirectory(prefix="distconv-tests-") as folder:
        for name, arguments in parts(chosen.markers).items():
            ran.append(run_part(name, [*arguments, *rest], Path(folder)))
            if ran[-1].code == INTERRUPTED:
                break
    print(f"\n{summary(ran, time.monotonic() - began_s)}")
    return exit_code(ran)


if __name__ == "__main__":
    sys.exit(main())
