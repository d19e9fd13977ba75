"""Write the json store's state file and journals, in an order that a crash cannot hurt.

Rules, which `docs/storage.md` explains:

- The state file exists before the first journal does, so a missing one was removed by a person,
  who wants a fresh start.
- A batch is acknowledged once its line in the journal is synced.
- A checkpoint writes the present state under another name, continues in a new journal, and only
  then gives the new state file its name. A journal is removed when neither the state file nor the
  previous one needs it.
- A journal that a failed sync or truncation has poisoned is never written again. Before the next
  batch, everything is rewritten from memory to a state file that does not depend on that journal.

All calls block. One thread may checkpoint while another commits; nothing else runs concurrently.
"""

import errno
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from distconv_plugins.stores.encoded import checked_changes
from distconv_plugins.stores.json_store.damage_file import DamageFile
from distconv_plugins.stores.json_store.journal import Journal, Position, sync_file
from distconv_plugins.stores.json_store.names import Names
from distconv_plugins.stores.json_store.recovery import Recovered, recover
from distconv_plugins.stores.json_store.state_file import Tables, empty_tables, write_state
from distconvd.disk import Disk, DiskLock, make_directories
from distconvd.errors import StoreError, StoreLocked
from distconvd.store import Change, Damage

log = logging.getLogger("distconvd.store")

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class View(NamedTuple):
    """The tables as of a position, for a checkpoint to write while commits continue."""

    tables: Tables
    position: Position
    journal_bytes: int
    """Bytes of journals that the new state file makes obsolete."""


class JsonFiles:
    """The files of one json store; see the module.

    Args:
        disk: the file system.
        state: absolute path of the state file.
    """

    def __init__(self, disk: Disk, state: Path) -> None:
        self.tables: Tables = empty_tables()
        self.state_bytes = 0
        self._disk = disk
        self._names = Names(disk, state)
        self._damage_file = DamageFile(disk, self._names)
        self._lock: DiskLock | None = None
        self._data_locks: list[DiskLock] = []
        """Locks on the journals of earlier runs, until this run has a journal of its own."""
        self._journal: Journal | None = None
        """None counts as poisoned."""
        self._end = Position(0, 0)
        """The last committed batch."""
        self._state_position = Position(0, 0)
        """The last batch that the state file contains."""
        self.journal_bytes = 0
        """Bytes of journals with batches that the state file does not contain."""
        self._next_journal = 1
        # Lock order: checkpointing before committing.
        self._committing = threading.Lock()
        self._checkpointing = threading.Lock()

    # ---------------------------------------------------------------------------------- opening

    def open(self) -> None:
        """Lock, recover, and get ready to append.

        Raises:
            StoreLocked: another process uses the store.
            StoreTooNew: a newer version wrote it.
            StoreError: the path is a directory.
            OSError: the disk failed.
        """
        if self._disk.is_directory(self._names.state):
            raise StoreError(
                f"{self._names.state} is a directory, but the json store keeps its state in a "
                "file; name a file, or choose the spool store"
            )
        make_directories(self._disk, self._names.directory)
        self._lock = self._take_lock()
        try:
            self._lock_journals()
            self._open_locked()
        except BaseException:
            self._release()
            raise

    def _take_lock(self) -> DiskLock:
        try:
            return self._disk.lock(self._names.lock, f"{os.getpid()}")
        except BlockingIOError as error:
            raise StoreLocked(
                f"the state file {self._names.state} is in use by process {error.strerror or '?'}; "
                "stop that daemon first, or give this one a --state-file of its own"
            ) from error

    def _lock_journals(self) -> None:
        """Make sure that no process writes a journal: the lock file's name may have been removed."""
        tried: set[int] = set()
        # Again until there are no new ones: a running daemon may change to its next journal meanwhile.
        while fresh := [number for number in self._names.journals() if number not in tried]:
            for number in fresh:
                tried.add(number)
                self._lock_journal(self._names.journal(number))

    def _lock_journal(self, path: Path) -> None:
        try:
            self._data_locks.append(self._disk.lock_existing(path))
        except FileNotFoundError:
            pass  # a running daemon has just removed it, and its present one is tried next
        except BlockingIOError as error:
            raise StoreLocked(
                f"the journal {path} is in use by another process, although {self._names.lock} is not "
                "locked (was it removed?); stop that daemon first, or give this one a --state-file "
                "of its own"
            ) from error

    def _unlock_journals(self) -> None:
        while self._data_locks:
            self._data_locks.pop().release()

    def _open_locked(self) -> None:
        self._remove(self._names.new)
        self._damage_file.read()
        found = recover(self._disk, self._names)
        self.tables = found.tables
        self.state_bytes = found.state_bytes
        self.journal_bytes = found.journal_bytes
        self._state_position = found.state_position
        self._end = found.position
        self._next_journal = found.next_journal
        for path in found.empty:
            self._remove(path)
        self._set_aside(found.orphans, "orphan")
        self._report(found)
        if found.keep_state is not None:
            self._names.copy_aside(self._names.state, found.keep_state)
        self._begin(found)
        self._set_aside(found.damaged, "damaged")

    def _report(self, found: Recovered) -> None:
        """Log the damage, and write it down before the files that show it are replaced."""
        if self._names.damage in found.orphans:
            self._damage_file.read()
        for earlier in self._damage_file.damage:
            log.warning("damage that nobody has acknowledged (`distconvd audit`): %s", earlier.text)
        damage = found.damage()
        for fresh in damage:
            log.error("%s", fresh.text)
        self._damage_file.add(damage)

    @property
    def damage(self) -> list[Damage]:
        """All damage that was found and not acknowledged, also by earlier runs."""
        return self._damage_file.damage

    def acknowledge_damage(self) -> None:
        """Forget the damage, durably."""
        if self._lock is None:
            raise StoreError("the store is closed")
        self._damage_file.acknowledge()

    def _begin(self, found: Recovered) -> None:
        """Get ready to append, always to a new journal: an earlier run's may have failed to sync.

        A batch that was found in such a journal may be in the page cache only, even if a sync
        succeeds now; so it is rewritten before anybody can read it.
        """
        try:
            if found.rewrite or found.journal_bytes:
                self._rewrite(found.previous)
            else:
                self._rotate()
        except OSError as error:
            if found.rewrite or error.errno not in _DISK_FULL:
                raise
            # A full disk need not stop reading. What is shown is as durable as is possible.
            if found.journal_bytes:
                sync_file(self._disk, self._names.journal(found.position.journal))
            log.error(
                "the disk is full; the state is read-only until there is space: %s",
                error.strerror or error,
            )

    def _set_aside(self, paths: Sequence[Path], why: str) -> None:
        for path in paths:
            log.error("%s is kept as %s", path, self._names.move_aside(path, why))
        if paths:
            self._disk.fsync_dir(self._names.directory)

    # -------------------------------------------------------------------------------- committing

    def commit(self, changes: Sequence[Change]) -> None:
        """Make a batch durable; `OSError` or `StoreError` leaves everything as it was."""
        changes = checked_changes(changes)
        if self._is_poisoned:
            with self._checkpointing, self._committing:
                self._repair()
        with self._committing:
            if self._journal is None:  # `_repair` would have raised
                raise StoreError("the store is closed")
            if changes:
                self.journal_bytes += self._journal.append(changes)
                self._end = self._journal.position
                self._apply(changes)

    @property
    def _is_poisoned(self) -> bool:
        return self._journal is None or self._journal.is_poisoned

    def _apply(self, changes: Sequence[Change]) -> None:
        for table, key, record in changes:
            if record is None:
                self.tables[table].pop(key, None)
            else:
                self.tables[table][key] = record

    def _repair(self) -> None:
        if self._lock is None:
            raise StoreError("the store is closed")
        if self._is_poisoned:
            self._rewrite()
            log.warning("the state file %s was rewritten after an I/O error", self._names.state)

    def _rewrite(self, previous: int | None = None) -> None:
        """Write a state file that does not depend on any journal before the next one."""
        fresh = Position(self._next_journal, 0)
        size = self._write_state(self.tables, fresh)
        self._install(size, fresh, previous)
        self._rotate()
        self.journal_bytes = 0

    # -------------------------------------------------------------------------------- checkpoints

    @property
    def is_behind(self) -> bool:
        """Whether the journal has batches that the state file does not contain."""
        return self.journal_bytes > 0

    def checkpoint(self) -> None:
        """Bring the state file up to date; may run in a thread while another commits."""
        with self._checkpointing:
            view = self.begin_checkpoint()
            if view is not None:
                self.end_checkpoint(view, self.write_checkpoint(view))

    def begin_checkpoint(self) -> View | None:
        """Return a view of the present tables; None if the state file has them already."""
        with self._committing:
            if self._journal is None or not self.is_behind:
                return None
            # The records are shared, since they never change: a copy costs a pointer for each.
            tables: Tables = {table: dict(records) for table, records in self.tables.items()}
            return View(tables, self._end, self.journal_bytes)

    def write_checkpoint(self, view: View) -> int:
        """Write the next state file and return its size; takes long, but no lock."""
        return self._write_state(view.tables, view.position)

    def end_checkpoint(self, view: View, size: int) -> None:
        """Continue in a new journal, and give the new state file its name."""
        with self._committing:
            if self._journal is None or self._journal.is_poisoned:
                return  # the next commit rewrites everything
            # A new journal, so that the older ones can be removed once no state file needs them.
            self._rotate()
        # Without that lock: freeing the blocks of the replaced file takes a while.
        self._install(size, view.position)
        with self._committing:
            # Subtract: batches that were committed meanwhile are not in this state file.
            self.journal_bytes -= view.journal_bytes

    def _write_state(self, tables: Tables, position: Position) -> int:
        try:
            # Never write to a file again whose sync has failed.
            self._disk.unlink(self._names.new)
        except FileNotFoundError:
            pass
        try:
            return write_state(self._disk, self._names.new, tables, position)
        except BaseException:
            self._remove(self._names.new)
            raise

    def _rotate(self) -> None:
        """Switch to the next journal; when this raises, the present one stays in use."""
        number = self._next_journal
        self._next_journal += 1
        path = self._names.journal(number)
        try:
            journal = Journal.create(self._disk, path, number, self._end)
        except BaseException:
            self._remove(path)
            raise
        if self._journal is not None:
            self._journal.close()
        self._journal = journal
        self._end = journal.position
        self._unlock_journals()

    def _install(self, size: int, position: Position, previous: int | None = None) -> None:
        """Give the new state file its name, durably, and remove journals that are not needed.

        The present state file becomes the previous one. If `previous` is given, the previous one
        stays instead, and needs the journals from that number on.
        """
        names = self._names
        if previous is None:
            self._keep_previous()
        self._disk.rename(names.new, names.state)
        # Before any journal is removed: until this sync, a crash may bring back the old state file.
        self._disk.fsync_dir(names.directory)
        needed = self._state_position.journal if previous is None else previous
        self._state_position = position
        self.state_bytes = size
        for number in names.journals():
            if number < needed:
                self._remove(names.journal(number))

    def _keep_previous(self) -> None:
        """Make the state file the previous one too, before it is replaced."""
        names = self._names
        self._remove(names.linked)
        try:
            self._disk.link(names.state, names.linked)
            self._disk.rename(names.linked, names.previous)
        except OSError as error:
            # Not every file system has links. An older previous file is of no use: the journals
            # that it needs are removed.
            reason = error.strerror or error
            log.warning("no previous state file is kept for %s: %s", names.state, reason)
            self._remove(names.previous)

    def _remove(self, path: Path) -> None:
        """Remove a file if possible; it does no harm if it stays."""
        try:
            self._disk.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("%s could not be removed: %s", path, error.strerror or error)

    # ----------------------------------------------------------------------------------- closing

    def close(self) -> None:
        """Checkpoint and release the files. If that fails, nothing is lost: the journal has it."""
        if self._lock is None:
            return
        try:
            if self._is_poisoned:
                with self._checkpointing, self._committing:
                    self._repair()
            self.checkpoint()
        except OSError as error:
            log.error(
                "the state file %s is not up to date, its journal has the rest: %s",
                self._names.state,
                error.strerror or error,
            )
        finally:
            self._release()

    def _release(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        self._unlock_journals()
        if self._lock is not None:
            self._lock.release()
            self._lock = None
