"""Share between the plugins' tests: plugin files, the daemon's side of a hook, and disk faults."""

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
"""The beginning of each plugin that the fixture `plugin` writes."""
Write = Callable[..., str]
"""The type of that fixture; its arguments are the plugin's text and its name (default `mine`)."""
JOB = {"source_url": "file:///a.mov", "target_codec": "h264"}
OPERATIONS_MAX = 400
"""More operations than any run here has."""


class Context:
    """The context that the daemon would give the plugin with this table of settings."""

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
    """Records what a plugin registers, by name."""

    def __init__(self) -> None:
        self.registered: dict[str, T] = {}

    def add(self, name: str, registered: T) -> None:
        self.registered[name] = registered


def registered(register: Callable[[Registrar[T]], None], name: str) -> T:
    """Return what a plugin's hook registers under a name."""
    registrar = RegistrarFixture[T]()
    register(registrar)
    return registrar.registered[name]


def each_fault(
    fault: Fault,
    error: int = 0,
    *,
    first: int = 1,
    more_than: int = 0,
    only: frozenset[str] = frozenset(),
) -> Iterator[tuple[int, FaultyDisk]]:
    """Yield (number, disk) with a fault at each operation of a run, up to the first not reached.

    `more_than`: a run with no more operations than this has left out what the test is about.
    """
    for at in range(first, OPERATIONS_MAX):
        disk = FaultyDisk(at, fault, error, only)
        yield at, disk
        if not disk.struck:
            assert at > more_than
            return
    pytest.fail("every run hit its fault: raise OPERATIONS_MAX?")


def stuck(caplog: pytest.LogCaptureFixture, words: str) -> None:
    """Block, as a bad plugin would, until these words are in the log."""
    deadline_s = time.perf_counter() + 10
    while words not in caplog.text:
        assert time.perf_counter() < deadline_s
        time.sleep(0.005)


async def insist(step: Callable[[], Awaitable[object]]) -> None:
    """Repeat a step after a disk error, as the service's loops do."""
    try:
        await step()
    except OSError:
        await step()
