"""What the plugins' tests share: plugins written on the spot, the daemon's side of an offer, and a
disk that fails at each step."""

import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import pytest

from distconv_spool.testing import Fault, FaultyDisk
from distconvd.disk import REAL_DISK
from distconvd.errors import ConfigError
from distconvd.hookspecs import Registrar, S
from distconvd.policy import Policy

T = TypeVar("T")
HEAD = """
import time, trio
from msgspec.structs import replace
from distconvd import hookimpl
from distconvd.errors import *
from distconvd.policy import Hold, Place, Share
"""
"""How each plugin begins that the fixture `plugin` writes."""
Write = Callable[..., str]
"""That fixture: the text of a plugin, and a name if it is to be another than `mine`."""
JOB = {"source_url": "file:///a.mov", "target_codec": "h264"}
OPERATIONS_MAX = 400
"""More than any life here has."""


class Context:
    """What the daemon would tell the plugin whose table of settings this is."""

    api_key = None
    key_file = None
    disk = REAL_DISK

    def __init__(
        self, root: Path, plugin: str, settings: dict[str, object], spool_dir: Path | None = None
    ) -> None:
        self.state_file = root / "state.json"
        self.media_dir = root / "media"
        self.spool_dir = spool_dir
        self._plugin, self._settings = plugin, settings

    def policy(self, name: str) -> Policy:
        raise ConfigError(f"there is no policy {name!r}")

    def settings(self, name: str, kind: type[S]) -> S:
        assert name == self._plugin
        return msgspec.convert(self._settings, kind)


class RegistrarFixture(Generic[T]):
    """What a plugin registers, by name."""

    def __init__(self) -> None:
        self.made: dict[str, T] = {}

    def add(self, name: str, registered: T) -> None:
        self.made[name] = registered


def registered(register: Callable[[Registrar[T]], None], name: str) -> T:
    """Return what a plugin's hook offers under a name."""
    registrar = RegistrarFixture[T]()
    register(registrar)
    return registrar.made[name]


def each_fault(
    fault: Fault,
    error: int = 0,
    *,
    first: int = 1,
    more_than: int = 0,
    only: frozenset[str] = frozenset(),
) -> Iterator[tuple[int, FaultyDisk]]:
    """Yield (number, disk) for a fault at each operation of a life, up to the first not reached.

    `more_than`: a life of no more operations than these is not the one that was meant.
    """
    for at in range(first, OPERATIONS_MAX):
        disk = FaultyDisk(at, fault, error, only)
        yield at, disk
        if not disk.struck:
            assert at > more_than
            return
    pytest.fail("no life ran through")


def stuck(caplog: pytest.LogCaptureFixture, words: str) -> None:
    """Block, as a bad plugin would, until the log says it in these words."""
    deadline_s = time.perf_counter() + 10
    while words not in caplog.text:
        assert time.perf_counter() < deadline_s
        time.sleep(0.005)


async def insist(step: Callable[[], Awaitable[object]]) -> None:
    """Do a step again when the disk refused it, as the service's loops do."""
    try:
        await step()
    except OSError:
        await step()
