"""Provide the fixtures of the client's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.client.fake import FakeDaemon

from distconv_client.follow import Pace
from distconv_client.main import cli
from distconv_client.shared import Flags


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture(autouse=True)
def nobodys_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the settings and the terminal of the person who runs the tests."""
    for name in ("DISTCONV_SERVER", "DISTCONV_API_KEY", "FORCE_COLOR", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))


@pytest.fixture
def run(daemon: FakeDaemon) -> Callable[..., Result]:
    """Run a command line against the fake daemon; nothing sleeps."""
    pace = Pace(sleep=lambda seconds: None)

    def call(*words: str) -> Result:
        flags = Flags(make_client=daemon.client, pace=pace)
        return CliRunner().invoke(cli, list(words), obj=flags)

    return call
