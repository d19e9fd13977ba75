"""Keep the state in memory only, for tests and for trying the daemon out.

A test may make commits fail (`fail_next`) or hang (`block_commits`). It may also simulate a
restart by giving the `Memory` of one store, as the disk, to the next store.
"""

from collections.abc import Sequence

import trio

from distconvd.errors import StoreError, StoreLocked
from distconvd.store import TABLES, Change, Snapshot, Table


class Memory:
    """The tables, which outlive a store object, and the store that uses them now."""

    def __init__(self) -> None:
        self.tables: dict[Table, dict[str, bytes]] = {table: {} for table in TABLES}
        self.owner: MemoryStore | None = None


class MemoryStore:
    """A dictionary for each table; see `distconvd.store.Store`.

    Args:
        memory: an earlier store's memory, to open it again; new and empty by default.

    Attributes:
        commits: how many batches were committed.
    """

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory or Memory()
        self.commits = 0
        self._failures: list[OSError | StoreError] = []
        self._released = trio.Event()
        self._released.set()

    def fail_next(self, error: OSError | StoreError, times: int = 1) -> None:
        """Let the next `times` commits raise `error` and change nothing."""
        self._failures += [error] * times

    def block_commits(self) -> None:
        """Let commits wait until `release`, as on a slow disk."""
        self._released = trio.Event()

    def release(self) -> None:
        """Let waiting commits continue."""
        self._released.set()

    async def load(self) -> Snapshot:
        """Take the memory; raises `StoreLocked` if another store object uses it."""
        await trio.lowlevel.checkpoint()
        if self.memory.owner is not None:
            raise StoreLocked("another store object uses this memory; close that one first")
        self.memory.owner = self
        return Snapshot(**{table: dict(records) for table, records in self.memory.tables.items()})

    async def commit(self, changes: Sequence[Change]) -> None:
        """Apply the changes, all or none."""
        await self._released.wait()
        if self._failures:
            raise self._failures.pop(0)
        for table, key, record in changes:
            if record is None:
                self.memory.tables[table].pop(key, None)
            else:
                self.memory.tables[table][key] = record
        self.commits += 1

    async def aclose(self) -> None:
        """Release the memory."""
        if self.memory.owner is self:
            self.memory.owner = None
        await trio.lowlevel.checkpoint()
