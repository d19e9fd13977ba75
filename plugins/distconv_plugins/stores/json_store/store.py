"""Keep the state in a readable JSON file with a journal next to it: the default store.

This module decides when: each batch is committed in a worker thread, and the store's own thread
writes a checkpoint when one is due. `files` decides what is read and written, and in which order;
formats and guarantees are in `docs/storage.md`.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import trio

from distconv_plugins.shared.os_errors import describe_error
from distconv_plugins.stores.json_store.files import JsonFiles
from distconvd.disk import REAL_DISK, Disk
from distconvd.errors import StoreError
from distconvd.store import Change, Damage, Snapshot

log = logging.getLogger("distconvd.store")

T = TypeVar("T")


class CheckpointBounds(NamedTuple):
    """When a checkpoint brings the state file up to date.

    Attributes:
        small_bytes: a state file up to this size follows each change.
        quiet_s: how long after the last change; a small state file may show a change no later than
            a second after it.
        journal_bytes_min: a journal below this size is never too large.
        ratio: nor is one below this multiple of the state file's size.
        retry_s: how long after a failed checkpoint the next one is tried.
    """

    small_bytes: int = 8_000_000
    quiet_s: float = 0.5
    journal_bytes_min: int = 8_000_000
    ratio: float = 1.0
    retry_s: float = 10.0


DEFAULT_BOUNDS = CheckpointBounds()


class JsonStore:
    """Tables in one JSON file; see `distconvd.store.Store`.

    Args:
        path: the state file; missing directories are created.
        disk: the file system.
        bounds: when to write a checkpoint.
    """

    def __init__(
        self, path: Path, *, disk: Disk = REAL_DISK, bounds: CheckpointBounds = DEFAULT_BOUNDS
    ) -> None:
        # Resolve links: a rename would replace the link instead of the file that it names.
        self.path = Path(os.path.realpath(path))
        self._files = JsonFiles(disk, self.path)
        self._compactor = _Compactor(self._files, bounds)
        self._thread = trio.CapacityLimiter(1)

    async def load(self) -> Snapshot:
        """Lock, recover, and return everything.

        Raises:
            StoreError: the store cannot be used; the text says what to do about it.
        """
        try:
            await self._run(self._files.open)
        except OSError as error:
            raise StoreError(
                f"the state file {self.path} cannot be used: {describe_error(error)}; its directory"
                " must be writable for the daemon's user, on a disk that works and is not full"
            ) from error
        self._compactor.start()
        return Snapshot(**{table: dict(records) for table, records in self._files.tables.items()})

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make the changes durable, all or none; an empty batch only tests the disk."""
        await self._run(lambda: self._files.commit(changes))
        self._compactor.notify_change()

    @property
    def damage(self) -> Sequence[Damage]:
        """All damage that was found and not acknowledged, also by earlier runs."""
        return self._files.damage

    async def acknowledge_damage(self) -> None:
        """Forget the damage, durably."""
        await self._run(self._files.acknowledge_damage)

    async def aclose(self) -> None:
        """Write a checkpoint and release the lock."""
        with trio.CancelScope(shield=True):
            await self._run(self._close)

    def _close(self) -> None:
        self._compactor.stop()
        self._files.close()

    async def _run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread; once begun, it is waited for even when cancelled."""
        return await trio.to_thread.run_sync(work, limiter=self._thread)


class _Compactor:
    """The thread that writes checkpoints; one for each open store.

    A thread and not a task: a store has no nursery of its own, and a checkpoint blocks.
    """

    def __init__(self, files: JsonFiles, bounds: CheckpointBounds) -> None:
        self._files = files
        self._bounds = bounds
        self._thread = threading.Thread(target=self._work, name="distconv-checkpoint", daemon=True)
        self._changed = threading.Condition()
        self._changes = 0
        self._stopping = False

    def start(self) -> None:
        """Start the thread; it soon updates a state file that is not up to date."""
        self._thread.start()

    def notify_change(self) -> None:
        """Note that a batch was committed."""
        with self._changed:
            self._changes += 1
            self._changed.notify()

    def stop(self) -> None:
        """Wait for a running checkpoint, and end the thread."""
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
                reason = describe_error(error)
                log.error("the state file is not up to date, its journal has the rest: %s", reason)
                self._pause(self._bounds.retry_s)

    def _wait_due(self) -> bool:
        """Wait until a checkpoint is due; False once the thread is to end."""
        with self._changed:
            while not self._stopping:
                if self._is_journal_too_large():
                    return True
                seen = self._changes
                due = self._files.is_behind and self._files.state_bytes <= self._bounds.small_bytes
                quiet = not self._changed.wait(self._bounds.quiet_s if due else None)
                if due and quiet and seen == self._changes:
                    return True
            return False

    def _is_journal_too_large(self) -> bool:
        bounds = self._bounds
        limit = max(bounds.journal_bytes_min, bounds.ratio * self._files.state_bytes)
        return self._files.journal_bytes > limit

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, seconds)
