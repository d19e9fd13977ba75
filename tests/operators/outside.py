"""Programs that are not Python's: where a test finds them, and why it is skipped without.

They are Debian's packages, and nobody needs them to develop DistConv. A test looks at
`DISTCONV_TEST_NGINX=…` (and so on), at `PATH` and the system folders, and at what
`tools/operator_tools.py` has unpacked into `.tools`.
"""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRIB = ROOT / "contrib"
_PLACES = ["/usr/sbin", "/sbin", *(str(ROOT / ".tools" / p) for p in ("usr/sbin", "usr/bin"))]


def maybe_program(name: str) -> str | None:
    """Return the place of a program, or None where there is none."""
    named = os.environ.get(f"DISTCONV_TEST_{name.upper()}")
    places = os.pathsep.join([os.environ.get("PATH", ""), *_PLACES])
    return named or shutil.which(name, path=places)


def program(name: str, package: str) -> str:
    """Return the place of a program of a Debian package, or skip the test that asks."""
    found = maybe_program(name)
    if found is None:
        pytest.skip(
            f"{name} is not here: `apt install {package}`, or `python3 tools/operator_tools.py`"
        )
    return found
