"""Test that the bench runs the daemon of another revision, not this checkout's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bench.compared import install

ROOT = Path(__file__).parents[2]


@pytest.mark.e2e
@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="no git here")
def test_an_installed_revision_comes_before_this_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    site = install("HEAD", tmp_path)
    script = (
        "import distconvd, importlib.metadata as metadata;"
        "print(distconvd.__file__);"
        "print(len({p.name for p in metadata.entry_points(group='distconvd')})"
        " == len(list(metadata.entry_points(group='distconvd'))))"
    )
    argv = [sys.executable, "-P", "-c", script]
    env = {**os.environ, "PYTHONPATH": str(site)}
    found = subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout
    module, is_unique = found.split()
    assert Path(module).is_relative_to(site)
    assert is_unique == "True", "each plugin is there once"
