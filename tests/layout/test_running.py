"""`make test` runs all tests in two parts, and passes only if both do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tools.run_tests import OUTCOMES, ROOT, Part, exit_code, parts, summary

HIDDEN = ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_CURRENT_TEST")
MEASURES = """
import os, pytest
def test_in_parallel(): assert "PYTEST_XDIST_WORKER" in os.environ and {parallel}
def test_skipped(): pytest.skip("a reason")
@pytest.mark.alone
def test_alone(): assert "PYTEST_XDIST_WORKER" not in os.environ and {alone}
"""


def run_tests(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run `tools/run_tests.py` on a folder of tests; return its exit code and output."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = alone: by itself\n")
    argv = [
        sys.executable,
        str(ROOT / "tools/run_tests.py"),
        "-q",
        "-c",
        str(folder / "pytest.ini"),
    ]
    argv += ["-p", "no:cacheprovider", *arguments, str(folder)]
    environ = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    done = subprocess.run(
        argv, capture_output=True, text=True, env=environ, timeout=120, check=False
    )
    return done.returncode, done.stdout


@pytest.mark.e2e
@pytest.mark.parametrize(
    "parallel, alone, code, total",
    [
        (True, True, 0, "=== 2 passed, 1 skipped in "),
        (False, True, 1, "=== NOT PASSED: 1 failed, 1 passed, 1 skipped in "),
        (True, False, 1, "=== NOT PASSED: 1 failed, 1 passed, 1 skipped in "),
    ],
)
def test_a_failure_in_either_part_fails_the_run_and_the_last_line_counts_both(
    tmp_path: Path, parallel: bool, alone: bool, code: int, total: str
) -> None:
    text = MEASURES.format(parallel=parallel, alone=alone)
    (tmp_path / "test_it.py").write_text(text)
    found, output = run_tests(tmp_path)
    last = output.splitlines()[-1]
    assert (found, last[: len(total)]) == (code, total), output
    assert last.endswith(", 1 alone) ===")


def test_every_test_is_in_exactly_one_part() -> None:
    both = [arguments[arguments.index("-m") + 1] for arguments in parts("").values()]
    assert both == ["not alone", "alone"]
    both = [arguments[arguments.index("-m") + 1] for arguments in parts("e2e or slow").values()]
    assert both == ["(e2e or slow) and not alone", "(e2e or slow) and alone"]


def test_a_run_without_a_test_does_not_pass() -> None:
    nothing = dict.fromkeys(OUTCOMES, 0)
    assert exit_code([Part("a", 5, nothing), Part("b", 5, nothing)]) == 5
    assert exit_code([Part("a", 5, nothing), Part("b", 0, nothing)]) == 0
    assert exit_code([Part("a", 0, nothing), Part("b", 3, nothing)]) == 3
    assert summary([Part("a", 5, nothing)], 61).startswith("=== NOT PASSED: no tests in 1:01 min")
