"""The json store, the default: a readable state file with a journal beside it.

This module keeps the time: commits run in a thread each, one hop a batch, and one thread of the
store's own folds the journal into the state file when that is due. What is read and written, and
in which order, is in `_json_files`; formats and guarantees are in `docs/storage.md`.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import trio

from distconv_plugins.stores.json_store.files import JsonFiles
from distconvd.disk import REAL_DISK, Disk
from distconvd.errors import StoreError
from distconvd.store import Change, Snapshot

log = logging.getLogger("distconvd.store")

T = TypeVar("T")


class CheckpointBounds(NamedTuple):
    """When the journal is folded into the state file.

    Attributes:
        small_bytes: up to this size of the state file, it follows each change.
        quiet_s: how long after the last change it does; there may be no more than a second between
            a change and a state file that shows it.
        journal_bytes_min: a journal below this size is not folded on account of its size.
        ratio: nor is one below this part of the state file.
        retry_s: how long after a fold that failed the next is tried.
    """

    small_bytes: int = 8_000_000
    quiet_s: float = 0.5
    journal_bytes_min: int = 8_000_000
    ratio: float = 1.0
    retry_s: float = 10.0


DEFAULT_BOUNDS = CheckpointBounds()


class JsonStore:
    """Tables in one JSON file, see `distconvd.store.Store`.

    Args:
        path: the state file; directories that are missing are made.
        disk: the file system.
        bounds: when to fold.
    """

    def __init__(
        self, path: Path, *, disk: Disk = REAL_DISK, bounds: CheckpointBounds = DEFAULT_BOUNDS
    ) -> None:
        # Through links: a rename would replace the link and leave the file that it names behind.
        self.path = Path(os.path.realpath(path))
        self._files = JsonFiles(disk, self.path)
        self._compactor = _Compactor(self._files, bounds)
        self._thread = trio.CapacityLimiter(1)

    async def load(self) -> Snapshot:
        """Lock, recover, and return everything.

        Raises:
            StoreError: with what to do about it.
        """
        try:
            await self._run(self._files.open)
        except OSError as error:
            raise StoreError(
                f"the state file {self.path} cannot be used: {error}; its directory must be "
                "writable for the user that the daemon runs as, on a disk that works and has room"
            ) from error
        self._compactor.start()
        return Snapshot(**{table: dict(records) for table, records in self._files.tables.items()})

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make the changes durable, all or none; an empty batch only tries the disk."""
        await self._run(lambda: self._files.commit(changes))
        self._compactor.notify_change()

    async def aclose(self) -> None:
        """Fold the journal, release the lock."""
        with trio.CancelScope(shield=True):
            await self._run(self._close)

    def _close(self) -> None:
        self._compactor.stop()
        self._files.close()

    async def _run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread; once it has begun, trio waits for it, cancelled or not."""
        return await trio.to_thread.run_sync(work, limiter=self._thread)


class _Compactor:
    """The thread that folds; one for each open store.

    It is a thread and not a task, since a store has no nursery of its own and a fold blocks.
    """

    def __init__(self, files: JsonFiles, bounds: CheckpointBounds) -> None:
        self._files = files
        self._bounds = bounds
        self._thread = threading.Thread(target=self._work, name="distconv-fold", daemon=True)
        self._changed = threading.Condition()
        self._changes = 0
        self._stopping = False

    def start(self) -> None:
        """Begin; a state file that is behind already is folded soon."""
        self._thread.start()

    def notify_change(self) -> None:
        """Tell of a change."""
        with self._changed:
            self._changes += 1
            self._changed.notify()

    def stop(self) -> None:
        """Wait for a fold that runs, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while self._wait_due():
            try:
                self._files.checkpoint()
            except OSError as error:
                log.error("the state file stays behind, its journal has the rest: %s", error)
                self._pause(self._bounds.retry_s)

    def _wait_due(self) -> bool:
        """Wait until a fold is due; False at the end."""
        with self._changed:
            while not self._stopping:
                if self._outgrown():
                    return True
                seen = self._changes
                due = self._files.is_behind and self._files.state_bytes <= self._bounds.small_bytes
                quiet = not self._changed.wait(self._bounds.quiet_s if due else None)
                if due and quiet and seen == self._changes:
                    return True
            return False

    def _outgrown(self) -> bool:
        bounds = self._bounds
        limit = max(bounds.journal_bytes_min, bounds.ratio * self._files.state_bytes)
        return self._files.unfolded_bytes > limit

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, seconds)
