"""The spool store: one file a record, for those who want to look at or mirror single records.

It needs several syncs a record where the json store needs one a batch, so it is for sites whose
jobs run for minutes, not for a thousand a second. What is written, and in which order, is in
`_spool_files`; the format and the guarantees are in `docs/storage.md`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import trio

from distconv_plugins.stores.spool_store.files import SpoolFiles
from distconvd.disk import REAL_DISK, Disk
from distconvd.errors import StoreError
from distconvd.store import Change, Snapshot

T = TypeVar("T")


class SpoolStore:
    """Tables in a directory tree, see `distconvd.store.Store`.

    Args:
        directory: the top of the tree; it and its parents are made where they are missing.
        disk: the file system.
    """

    def __init__(self, directory: Path, *, disk: Disk = REAL_DISK) -> None:
        self.directory = directory.absolute()
        self._files = SpoolFiles(disk, self.directory)
        self._thread = trio.CapacityLimiter(1)

    async def load(self) -> Snapshot:
        """Lock, recover, and return everything.

        Raises:
            StoreError: with what to do about it.
        """
        try:
            return await self._run(self._files.open)
        except OSError as error:
            raise StoreError(
                f"the spool store {self.directory} cannot be used: {error}; it must be writable "
                "for the user that the daemon runs as, on a disk that works and has room"
            ) from error

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make the changes durable, all or none; an empty batch only tries the disk."""
        await self._run(lambda: self._files.commit(changes))

    async def aclose(self) -> None:
        """Release the lock."""
        with trio.CancelScope(shield=True):
            await self._run(self._files.close)

    async def _run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread; once it has begun, trio waits for it, cancelled or not."""
        return await trio.to_thread.run_sync(work, limiter=self._thread)
