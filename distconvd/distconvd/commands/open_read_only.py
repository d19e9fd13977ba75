"""Opening a store to look at it, while no daemon holds it, without changing anything on disk.

The store is the one that the daemon would use, on a `DiskView`. A store that does not write through
the disk that it is handed could change what is looked at, so it is refused before it is opened. What
the store says of damage while it opens, it says in log lines of level ERROR; those are collected,
since whoever looks wants to know, and they are not true of the real files (nothing is set aside).
"""

import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

from distconvd.commands.read_only_disk import DiskView
from distconvd.config import Config
from distconvd.errors import ConfigError, StoreError
from distconvd.plugin_host.loading import Context, Plugins, build_checked
from distconvd.store import Snapshot, Store

DAMAGE_MAX = 1000


class StoreView(NamedTuple):
    """What a store holds.

    Attributes:
        place: store and path, as `migrate` writes them.
        snapshot: all records.
        complaints: what the store said of damage.
    """

    place: str
    snapshot: Snapshot
    collect_damage: list[str]


@asynccontextmanager
async def open_read_only(config: Config, *, is_tolerant: bool) -> AsyncGenerator[StoreView]:
    """Open the store of a configuration and hold it, so that no daemon starts meanwhile.

    Args:
        config: names store and path.
        is_tolerant: take what can be read of a damaged store; otherwise damage raises.

    Raises:
        ConfigError: there is nothing at that path or no store, or it cannot be looked at.
        StoreError: a daemon holds it, it is damaged, or it cannot be read.
    """
    context = Context(config, disk=DiskView())
    store = _build_store(config, context)
    if not context.state_file.exists():
        raise ConfigError(
            f"there is nothing at {context.state_file}; name the store with --store and "
            "--state-file, as the daemon has them",
            exit_code=2,
        )
    require_storage(context.state_file)
    with collect_damage() as damage:
        snapshot = await store.load()
    try:
        if damage and not is_tolerant:
            raise damaged(damage)
        yield StoreView(f"{config.store}:{config.state_file}", snapshot, damage)
    finally:
        await store.aclose()


def require_storage(path: Path) -> None:
    """Raise `ConfigError` for what is there and can be no store: a pipe, a device, a socket. To read
    it might never end, and to replace it would harm the machine."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ConfigError(
            f"{path} is neither a regular file nor a folder, so it is no store; name the store with "
            "--store and --state-file, as the daemon has them",
            exit_code=2,
        )


@contextmanager
def collect_damage() -> Generator[list[str]]:
    """Give what stores complain of in a block, instead of having it logged."""
    ear = _DamageHandler()
    log = logging.getLogger("distconvd.store")
    log.addHandler(ear)
    was_propagated, log.propagate = log.propagate, False
    try:
        yield ear.damage
    finally:
        log.propagate = was_propagated
        log.removeHandler(ear)


def damaged(damage: list[str]) -> StoreError:
    """Return the error for a store that complained."""
    return StoreError(
        f"the store is damaged: {damage[0]}; `distconvd audit` tells all; a start of the "
        "daemon recovers what can be recovered"
    )


def _build_store(config: Config, context: Context) -> Store:
    stores = Plugins(config.plugins).collect("distconvd_register_stores", "store")
    store: Store = build_checked(
        "store", config.store, stores.pick(config.store), context, owner=stores.owner(config.store)
    )
    if not context.disk_was_taken:
        raise ConfigError(
            f"the store {config.store!r} does not write through the disk that it is handed "
            "(context.disk), so looking at it could change it; ask the running daemon with "
            "`distconvd audit --url URL`, or `distconvd migrate` it into a json store and look there",
            exit_code=2,
        )
    return store


class _DamageHandler(logging.Handler):
    """Remembers what a store complains of."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.damage: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.damage) < DAMAGE_MAX:
            self.damage.append(record.getMessage())
