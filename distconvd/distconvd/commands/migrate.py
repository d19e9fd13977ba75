"""Copy all records from one store to another, and compare the result.

Rules: the target must be empty, since mixing the jobs of two sites would corrupt both; no record of
the source changes. The copy goes in batches of bounded size, so it may end half-way (a full disk, a kill):
then the target is not empty, and the message says to empty it and start again. The copy is valid only
once the target has been closed, reopened and compared, record by record and in order.
"""

# ruff: noqa: T201 - a command's output is its job

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import trio

from distconvd.commands.counts import count
from distconvd.config import Config, load_config
from distconvd.errors import ConfigError, StoreError
from distconvd.plugin_host.loading import Context, Plugins
from distconvd.store import TABLES, Change, Snapshot, Store

BATCH_BYTES = 4_000_000
BATCH_RECORDS = 5_000


class MigrationReport(NamedTuple):
    """What was copied and compared: the number of records of each table, and bytes in total."""

    jobs: int
    engines: int
    attempts: int
    meta: int
    bytes: int

    def __str__(self) -> str:
        counts = ", ".join(count(getattr(self, table), table) for table in TABLES)
        return f"{counts}: {count(self.bytes, 'bytes')} copied and compared"


def run(config: Config, source: str, target: str) -> None:
    """Copy one store to another, each named as STORE:PATH, and print what was copied."""
    print(trio.run(_migrate, config, source, target))


async def _migrate(config: Config, source: str, target: str) -> MigrationReport:
    plugins = Plugins(config.plugins)
    registrar = plugins.collect("distconvd_register_stores", "store")
    stores: list[Store] = []
    for place in (source, target, target):  # the target again, to read it back
        name, colon, path = place.partition(":")
        if not colon or not path:
            raise ConfigError(
                f"{place!r} is not a store: expected STORE:PATH, such as json:state.json",
                exit_code=2,
            )
        context = Context(load_config({"state_file": path}, {}).config)
        stores.append(registrar.pick(name)(context))
    return await migrate(*stores)


async def migrate(source: Store, target: Store, reopened: Store) -> MigrationReport:
    """Copy all records of `source` into an empty store, and read them back.

    Args:
        source: the store to read; none of the three is loaded yet, and each is closed afterwards.
        target: the store to write to.
        reopened: another store object of the target's path, to read back what was written.

    Raises:
        StoreError: the target is not empty, or does not contain afterwards what was written to it.
        OSError: a disk failed.
    """
    snapshot = await read_store(source)
    try:
        found = await target.load()
        refuse_unless_empty(found)
        for batch in batches(_changes(snapshot)):
            await target.commit(batch)
    except OSError as error:
        raise StoreError(
            f"the copy ended half-way: {error.strerror or error}; the source is unchanged; "
            "free space or repair the disk, empty the target, and start again"
        ) from error
    finally:
        await target.aclose()
    _compare(snapshot, await read_store(reopened))
    counts = {table: len(getattr(snapshot, table)) for table in TABLES}
    return MigrationReport(bytes=_bytes(snapshot), **counts)


async def read_store(store: Store) -> Snapshot:
    """Load a store and close it."""
    try:
        return await store.load()
    finally:
        await store.aclose()


def refuse_unless_empty(found: Snapshot) -> None:
    """Raise `StoreError` with the number of records of each table, if there are any."""
    counts = [count(len(records), table) for table, records in _tables(found) if records]
    if counts:
        raise StoreError(
            f"the target is not empty (it has {', '.join(counts)}); name an empty one, or move this "
            "one away"
        )


def _tables(snapshot: Snapshot) -> Iterator[tuple[str, dict[str, bytes]]]:
    yield from zip(TABLES, snapshot, strict=True)


def _changes(snapshot: Snapshot) -> Iterator[Change]:
    for table, records in zip(TABLES, snapshot, strict=True):
        for key, record in records.items():
            yield Change(table, key, record)


def batches(changes: Iterable[Change]) -> Iterator[list[Change]]:
    """Yield changes in batches of bounded size."""
    batch: list[Change] = []
    size_bytes = 0
    for change in changes:
        batch.append(change)
        size_bytes += len(change.record or b"")
        if size_bytes >= BATCH_BYTES or len(batch) >= BATCH_RECORDS:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def _compare(copied: Snapshot, found: Snapshot) -> None:
    for (table, before), (_table, after) in zip(_tables(copied), _tables(found), strict=True):
        if list(before.items()) == list(after.items()):
            continue
        differing = [key for key in before if after.get(key) != before[key]]
        plural = "record differs" if len(differing) == 1 else "records differ"
        what = f"{len(differing)} {plural}" if differing else "the order differs"
        raise StoreError(
            f"the copy is wrong: of {table}, {what} ({len(before)} copied, {len(after)} read back); "
            "keep using the source, and check the target's disk"
        )


def _bytes(snapshot: Snapshot) -> int:
    return sum(len(record) for records in snapshot for record in records.values())
