"""Provide the fixtures of the intake's tests."""

from pathlib import Path

import pytest
from tests.plugins.spool_intake.kit import FakeDaemon

from distconv_spool import Layout, create


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create(tmp_path / "spool")
