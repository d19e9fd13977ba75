"""`make setup` on machines that lack something: it says what, and leaves nothing half made."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A place with just what setup reads."""
    place = tmp_path / "clone"
    (place / "tools").mkdir(parents=True)
    for name in ("tools/setup.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, place / name)
    return place


def run_setup(place: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    # The interpreter that .venv was made with, not .venv's own: a venv of a venv is not the case.
    python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    return subprocess.run(
        [str(python), str(place / "tools" / "setup.py")],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_without_the_venv_module_it_names_the_package_to_install(clone: Path) -> None:
    # As on a Debian without python3-venv: the interpreter is whole but for ensurepip.
    hide = clone / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, p=None: None if n == 'ensurepip' else find(n, p)\n"
    )
    done = run_setup(clone, PYTHONPATH=str(hide))
    assert done.returncode == 1
    assert "ensurepip is missing" in done.stderr
    assert "apt install python3-venv" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert not (clone / ".venv").exists()


@pytest.mark.slow
def test_without_a_network_it_says_so_and_leaves_no_environment(clone: Path) -> None:
    nowhere = "http://127.0.0.1:9/"  # the discard port: nobody listens, refused at once
    done = run_setup(
        clone,
        PIP_INDEX_URL=nowhere,
        PIP_EXTRA_INDEX_URL=nowhere,
        PIP_CONFIG_FILE=os.devnull,
        PIP_CACHE_DIR=str(clone / "cache"),
    )
    assert done.returncode == 1
    assert "network" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert not (clone / ".venv").exists()
    assert not (clone / ".wheelhouse").exists()


def test_with_a_too_old_python_it_names_the_version_needed(clone: Path) -> None:
    # Pretend: the check reads sys.version_info, and PATH holds no newer one.
    old = clone / "old"
    old.mkdir()
    (old / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 9, 2)\n")
    done = run_setup(clone, PYTHONPATH=str(old), PATH=str(old))
    assert done.returncode == 1
    assert "3.11 or newer is needed" in done.stderr
    assert "is 3.9" in done.stderr
    assert not (clone / ".venv").exists()
