"""Provide the fixtures of the API's tests: one in-memory daemon per test, and a `Farm`."""

import pytest
from tests.api.kit import Farm

from distconvd.testing.daemon import Daemon, daemon

__all__ = ["daemon"]


@pytest.fixture
def farm(daemon: Daemon) -> Farm:
    return Farm(daemon)
