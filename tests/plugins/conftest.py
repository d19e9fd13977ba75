"""Provide the fixtures of the plugins' tests."""

import os
from pathlib import Path

import pytest
from tests.plugins.kit import HEAD, Write


@pytest.fixture
def plugin(tmp_path: Path) -> Write:
    """Write a plugin of one file and return its name."""

    def write(text: str, name: str = "mine") -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(HEAD + text)
        return str(path)

    return write


@pytest.fixture
def no_real_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip real fsyncs: `FaultyDisk` records what is durable, and the tests make thousands."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
