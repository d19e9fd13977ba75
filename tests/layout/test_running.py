"""`make test` runs all tests in two parts, and passes only if both do."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.budget import CPU_S_MAX_OF
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
    (folder / "pytest.ini").write_text(
        f"[pytest]\npythonpath = {ROOT}\nmarkers = alone: by itself\n"
    )
    argv = [
        sys.executable,
        str(ROOT / "tools/run_tests.py"),
        "-q",
        "-c",
        str(folder / "pytest.ini"),
    ]
    argv += ["-p", "no:cacheprovider", "-p", "xdist", *arguments, str(folder)]
    environ = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they cost more than the tests
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


SPENDS = """
import time
from tests import budget
from tests.budget import pytest_runtest_call
budget.CPU_S_MAX = 0.2
"""


def test_a_test_that_takes_too_much_cpu_time_fails(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(SPENDS)
    spend = "    end_s = time.process_time() + 0.3\n    while time.process_time() < end_s: pass\n"
    (tmp_path / "test_it.py").write_text(
        f"import time\ndef test_quick(): pass\ndef test_dear():\n{spend}"
    )
    code, output = run_tests(tmp_path)
    assert code == 1
    assert re.search(r"took \d s of CPU time, limit 0", output), output
    assert "1 failed, 1 passed" in output.splitlines()[-1]


def test_every_exception_from_the_budget_is_a_test() -> None:
    texts = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")
    )
    assert [name for name in CPU_S_MAX_OF if f"def {name}(" not in texts] == []
