"""Open a store that no daemon uses, to read it without changing anything on disk.

The store is the one that the daemon would use, on a `DiskView`. A store that does not write through
the disk that it is given could change the real files, so it is rejected before it is opened. A store
reports damage, while it opens, in log lines of level ERROR; these are collected for the caller, and not
logged, as they are not true of the real files (nothing is set aside).
"""

import logging
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

from distconvd.commands.read_only_disk import DiskView
from distconvd.config import Config
from distconvd.errors import ConfigError, StoreError
from distconvd.plugin_host.loading import Context, Plugins, build_checked
from distconvd.store import Damage, DamageReporter, Snapshot, Store

DAMAGE_MAX = 1000


class StoreView(NamedTuple):
    """The contents of a store.

    Attributes:
        place: store and path, as `migrate` writes them.
        snapshot: all records.
        damage: what the store reported as damaged.
        reported: all damage that nobody has acknowledged, with the records that it concerns.
    """

    place: str
    snapshot: Snapshot
    damage: list[str]
    reported: Sequence[Damage] = ()


@asynccontextmanager
async def open_read_only(config: Config, *, is_tolerant: bool) -> AsyncGenerator[StoreView]:
    """Open and lock the store of a configuration, so that no daemon starts meanwhile.

    Args:
        config: names store and path.
        is_tolerant: return what can be read of a damaged store; otherwise damage raises.

    Raises:
        ConfigError: that path has nothing or no store, or the store cannot be opened read-only.
        StoreError: a daemon uses it, it is damaged, or it cannot be read.
    """
    context = Context(config, disk=DiskView())
    store = build_store(config, context)
    _require_own_disk(config, context)
    if not context.state_file.exists():
        raise ConfigError(
            f"{context.state_file} does not exist; name the store with --store and --state-file, as "
            "the daemon has them",
            exit_code=2,
        )
    require_storage(context.state_file)
    with collect_damage() as damage:
        snapshot = await store.load()
    try:
        if damage and not is_tolerant:
            raise damaged(damage)
        yield StoreView(f"{config.store}:{config.state_file}", snapshot, damage, damage_of(store))
    finally:
        await store.aclose()


def require_storage(path: Path) -> None:
    """Raise `ConfigError` for a pipe, a device or a socket, which cannot be a store: reading it might
    never end, and replacing it would harm the machine."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ConfigError(
            f"{path} is neither a regular file nor a folder, so it cannot be a store; name the store "
            "with --store and --state-file, as the daemon has them",
            exit_code=2,
        )


@contextmanager
def collect_damage() -> Generator[list[str]]:
    """Yield a list of the damage that stores report in the block, instead of logging it."""
    handler = _DamageHandler()
    log = logging.getLogger("distconvd.store")
    log.addHandler(handler)
    was_propagated, log.propagate = log.propagate, False
    try:
        yield handler.damage
    finally:
        log.propagate = was_propagated
        log.removeHandler(handler)


def damaged(damage: list[str]) -> StoreError:
    """Return the error for a store that reported damage."""
    return StoreError(
        f"the store is damaged: {damage[0]}; `distconvd audit` shows all damage; a start of the "
        "daemon recovers what can be recovered"
    )


def damage_of(store: Store) -> Sequence[Damage]:
    """Return the damage that an open store reports."""
    return tuple(store.damage) if isinstance(store, DamageReporter) else ()


def build_store(config: Config, context: Context) -> Store:
    """Return the store of a configuration, not opened yet."""
    stores = Plugins(config.plugins).collect("distconvd_register_stores", "store")
    store: Store = build_checked(
        "store", config.store, stores.pick(config.store), context, owner=stores.owner(config.store)
    )
    return store


def _require_own_disk(config: Config, context: Context) -> None:
    if not context.disk_was_taken:
        raise ConfigError(
            f"the store {config.store!r} does not write through the disk that it is given "
            "(context.disk), so opening it could change it; audit the running daemon with "
            "`distconvd audit --url URL`, or copy the store with `distconvd migrate` into a json "
            "store and use that",
            exit_code=2,
        )


class _DamageHandler(logging.Handler):
    """Keeps the damage that a store reports."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.damage: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.damage) < DAMAGE_MAX:
            self.damage.append(record.getMessage())
