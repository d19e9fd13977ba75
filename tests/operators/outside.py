"""Find external programs, and load loose Python and YAML files, for tests of contrib/.

The programs are not needed to develop DistConv. A test looks for them at `DISTCONV_TEST_NGINX=…` (and so
on), on `PATH`, in the system folders and in `.tools`, where `tools/operator_tools.py` puts them; if a
program is missing, the test is skipped.
"""

import importlib.util
import os
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from distconv_engine import config as engine_config
from distconvd import config as daemon_config

ROOT = Path(__file__).resolve().parents[2]
CONTRIB = ROOT / "contrib"
_BIN_DIRECTORIES = [
    "/usr/sbin",
    "/sbin",
    *(str(ROOT / ".tools" / p) for p in ("usr/sbin", "usr/bin")),
]


def maybe_program(name: str) -> str | None:
    """Return the path of a program, or None if it is missing."""
    named = os.environ.get(f"DISTCONV_TEST_{name.upper()}")
    places = os.pathsep.join([os.environ.get("PATH", ""), *_BIN_DIRECTORIES])
    return named or shutil.which(name, path=places)


def program(name: str) -> str:
    """Return the path of a program, or skip the calling test."""
    found = maybe_program(name)
    if found is None:
        pytest.skip(f"{name} is not installed: `python3 tools/operator_tools.py` fetches it")
    return found


def load(path: Path) -> ModuleType:
    """Import a Python file of contrib/ that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documents(path: Path) -> list[Any]:
    """Return the documents of a YAML file."""
    parts = re.split(r"^---$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [msgspec.yaml.decode(part) for part in parts]


def engine_settings() -> set[str]:
    """Return the variables that the engine reads."""
    return {f"DISTCONV_{name.upper()}" for name in engine_config.Config.__struct_fields__}


def daemon_settings() -> set[str]:
    """Return the variables that the daemon reads."""
    return {f"DISTCONV_{name.upper()}" for name in daemon_config.Config.__struct_fields__}
