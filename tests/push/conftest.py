"""Provide the fixtures of the push tests: one in-memory daemon per test, and websockets."""

from collections.abc import AsyncGenerator

import pytest
import trio
from tests.api.kit import Farm
from tests.push.kit import Wall

from distconvd.testing.daemon import Daemon, daemon

__all__ = ["daemon"]


@pytest.fixture
def farm(daemon: Daemon) -> Farm:
    return Farm(daemon)


@pytest.fixture
async def wall(daemon: Daemon) -> AsyncGenerator[Wall]:
    async with trio.open_nursery() as nursery:
        wall = Wall(daemon, nursery)
        yield wall
        await wall.hang_up()
        nursery.cancel_scope.cancel()
