"""The memory store: for tests and for trying the daemon out. Nothing outlives the process.

A test may make commits fail (`fail_next`) or hang (`block_commits`), and "restart" by giving the `Memory`
of one store to the next, which then plays the part of the disk.
"""

from collections.abc import Sequence

import trio

from distconvd.errors import StoreError, StoreLocked
from distconvd.store import TABLES, Change, Snapshot, Table


class Memory:
    """What outlives a store object: the tables, and who holds them."""

    def __init__(self) -> None:
        self.tables: dict[Table, dict[str, bytes]] = {table: {} for table in TABLES}
        self.owner: MemoryStore | None = None


class MemoryStore:
    """Tables in a dictionary each, see `distconvd.store.Store`.

    Args:
        memory: an earlier store's memory, to open it again; new and empty by default.

    Attributes:
        commits: how many batches were taken.
    """

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory or Memory()
        self.commits = 0
        self._failures: list[OSError | StoreError] = []
        self._released = trio.Event()
        self._released.set()

    def fail_next(self, error: OSError | StoreError, times: int = 1) -> None:
        """Let the next `times` commits raise `error`, each leaving everything as it was."""
        self._failures += [error] * times

    def block_commits(self) -> None:
        """Let commits wait until `release`, as on a slow disk."""
        self._released = trio.Event()

    def release(self) -> None:
        """Let the commits that wait go on."""
        self._released.set()

    async def load(self) -> Snapshot:
        """Take the memory; `StoreLocked` when another store object has it."""
        await trio.lowlevel.checkpoint()
        if self.memory.owner is not None:
            raise StoreLocked("another store object holds this memory; close that one first")
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
        """Let go of the memory."""
        if self.memory.owner is self:
            self.memory.owner = None
        await trio.lowlevel.checkpoint()
