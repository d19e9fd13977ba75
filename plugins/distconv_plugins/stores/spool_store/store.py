"""Keep one file a record, for those who want to look at or mirror single records.

This takes several syncs a record where the json store needs one a batch, so it suits sites whose
jobs run for minutes, not a thousand jobs a second. `files` decides what is written, and in which
order; the format and the guarantees are in `docs/storage.md`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import trio

from distconv_plugins.shared.os_errors import describe_error
from distconv_plugins.stores.spool_store.files import SpoolFiles
from distconvd.disk import REAL_DISK, Disk
from distconvd.errors import StoreError
from distconvd.store import Change, Damage, Snapshot

T = TypeVar("T")


class SpoolStore:
    """Tables in a directory tree; see `distconvd.store.Store`.

    Args:
        directory: the top of the tree; it and its parents are created if they are missing.
        disk: the file system.
    """

    def __init__(self, directory: Path, *, disk: Disk = REAL_DISK) -> None:
        self.directory = directory.absolute()
        self._files = SpoolFiles(disk, self.directory)
        self._thread = trio.CapacityLimiter(1)

    async def load(self) -> Snapshot:
        """Lock, recover, and return everything.

        Raises:
            StoreError: the store cannot be used; the text says what to do about it.
        """
        try:
            return await self._run(self._files.open)
        except OSError as error:
            raise StoreError(
                f"the spool store {self.directory} cannot be used: {describe_error(error)}; it must"
                " be writable for the daemon's user, on a disk that works and is not full"
            ) from error

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make the changes durable, all or none; an empty batch only tests the disk."""
        await self._run(lambda: self._files.commit(changes))

    @property
    def damage(self) -> Sequence[Damage]:
        """The files that were set aside and not acknowledged, also by earlier runs."""
        return self._files.damage

    async def acknowledge_damage(self) -> None:
        """Forget the damage, durably."""
        await self._run(self._files.acknowledge_damage)

    async def aclose(self) -> None:
        """Release the lock."""
        with trio.CancelScope(shield=True):
            await self._run(self._files.close)

    async def _run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread; once begun, it is waited for even when cancelled."""
        return await trio.to_thread.run_sync(work, limiter=self._thread)
