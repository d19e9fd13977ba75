"""Fixtures of the API's tests: one daemon in memory a test, and short ways to make jobs."""

import pytest
from tests.api.kit import Farm

from distconvd.testing.daemon import Daemon, daemon

__all__ = ["daemon"]


@pytest.fixture
def farm(daemon: Daemon) -> Farm:
    return Farm(daemon)
