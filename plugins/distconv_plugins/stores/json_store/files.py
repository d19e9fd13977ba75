"""The json store without its threads: state file and journals, and the steps between them.

Rules, which `docs/storage.md` explains:

- The state file is there before the first journal is, so one that is missing was taken away by a
  person, who wants a fresh start.
- A batch is acknowledged once its line in the journal is synced.
- A fold writes the state file as of now under another name, goes on in a new journal, and only
  then gives the new state file its name. Journals are removed when neither the state file nor the
  previous one needs them.
- A journal that a failed sync or cut made suspect is never written again. Everything is written
  anew from memory before the next batch, to a state file that asks nothing of that journal.

All calls block. One thread may fold while another commits; nothing else runs side by side.
"""

import errno
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from distconv_plugins.stores.encoded import checked_changes
from distconv_plugins.stores.json_store.journal import Journal, Position, sync_file
from distconv_plugins.stores.json_store.names import Names
from distconv_plugins.stores.json_store.recovery import Recovered, recover
from distconv_plugins.stores.json_store.state_file import Tables, empty_tables, write_state
from distconvd.disk import Disk, DiskLock, make_directories
from distconvd.errors import StoreError, StoreLocked
from distconvd.store import Change

log = logging.getLogger("distconvd.store")

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class View(NamedTuple):
    """The tables as of a position, for a fold to write while commits go on."""

    tables: Tables
    position: Position
    unfolded_bytes: int
    """Of journals, that the state file will no longer be behind."""


class JsonFiles:
    """The files of one json store, see the module.

    Args:
        disk: the file system.
        state: absolute path of the state file.
    """

    def __init__(self, disk: Disk, state: Path) -> None:
        self.tables: Tables = empty_tables()
        self.state_bytes = 0
        self._disk = disk
        self._names = Names(disk, state)
        self._lock: DiskLock | None = None
        self._journal: Journal | None = None
        """None is as suspect as a suspect one."""
        self._end = Position(0, 0)
        """The last batch there is."""
        self._folded = Position(0, 0)
        """What the state file contains."""
        self.unfolded_bytes = 0
        """Of journals, what the state file does not contain."""
        self._next_journal = 1
        self._committing = threading.Lock()
        self._folding = threading.Lock()

    # ---------------------------------------------------------------------------------- opening

    def open(self) -> None:
        """Lock, recover, and get ready to append.

        Raises:
            StoreLocked: another process has the store.
            StoreTooNew: a newer version wrote it.
            StoreError: the path is of no use.
            OSError: the disk failed.
        """
        if self._disk.is_directory(self._names.state):
            raise StoreError(
                f"{self._names.state} is a directory, and the json store keeps its state in a "
                "file; name a file, or choose the spool store"
            )
        make_directories(self._disk, self._names.directory)
        self._lock = self._take_lock()
        try:
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

    def _open_locked(self) -> None:
        self._remove(self._names.new)
        found = recover(self._disk, self._names)
        self.tables = found.tables
        self.state_bytes = found.state_bytes
        self.unfolded_bytes = found.unfolded_bytes
        self._folded = found.folded
        self._end = found.position
        self._next_journal = found.next_journal
        for path in found.empty:
            self._remove(path)
        self._set_aside(found.orphans, "orphan")
        if found.keep_state is not None:
            self._names.copy_aside(self._names.state, found.keep_state)
        self._begin(found)
        self._set_aside(found.damaged, "damaged")

    def _begin(self, found: Recovered) -> None:
        """Get ready to append; to no journal of an earlier run, which a failed sync may have hurt.

        A batch that was found in one may be in memory only, whatever a sync would say now, so it is
        written anew before anybody is told of it.
        """
        try:
            if found.rewrite or found.unfolded_bytes:
                self._rewrite(found.previous)
            else:
                self._rotate()
        except OSError as error:
            if found.rewrite or error.errno not in _DISK_FULL:
                raise
            # Jobs can be read, and what is shown is as durable as it gets.
            if found.unfolded_bytes:
                sync_file(self._disk, self._names.journal(found.position.journal))
            log.error("the disk is full: nothing can be changed until there is room: %s", error)

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
            with self._folding, self._committing:
                self._repair()
        with self._committing:
            if self._journal is None:  # `_repair` would have raised
                raise StoreError("the store is closed")
            if changes:
                self.unfolded_bytes += self._journal.append(changes)
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
            log.warning("the state file %s was written anew after an I/O error", self._names.state)

    def _rewrite(self, previous: int | None = None) -> None:
        """Write a state file that asks nothing of the journals before the next one."""
        fresh = Position(self._next_journal, 0)
        size = self._write_state(self.tables, fresh)
        self._install(size, fresh, previous)
        self._rotate()
        self.unfolded_bytes = 0

    # ----------------------------------------------------------------------------------- folding

    @property
    def is_behind(self) -> bool:
        """Whether the state file is behind."""
        return self.unfolded_bytes > 0

    def checkpoint(self) -> None:
        """Bring the state file up to date; may run in a thread while another commits."""
        with self._folding:
            view = self.begin_checkpoint()
            if view is not None:
                self.end_checkpoint(view, self.write_checkpoint(view))

    def begin_checkpoint(self) -> View | None:
        """Take the tables as they are; None when the state file has them already."""
        with self._committing:
            if self._journal is None or not self.is_behind:
                return None
            # The records are shared: this costs a pointer each, and the records never change.
            tables: Tables = {table: dict(records) for table, records in self.tables.items()}
            return View(tables, self._end, self.unfolded_bytes)

    def write_checkpoint(self, view: View) -> int:
        """Write the next state file and return its size; takes long, and no lock."""
        return self._write_state(view.tables, view.position)

    def end_checkpoint(self, view: View, size: int) -> None:
        """Go on in a new journal, and give the new state file its name."""
        with self._committing:
            if self._journal is None or self._journal.is_poisoned:
                return  # the next commit writes everything anew
            self._rotate()
        # Not under that lock: to free the blocks of a big file takes a while.
        self._install(size, view.position)
        with self._committing:
            self.unfolded_bytes -= view.unfolded_bytes

    def _write_state(self, tables: Tables, position: Position) -> int:
        try:
            # A file that a sync failed on is not used again.
            self._disk.unlink(self._names.new)
        except FileNotFoundError:
            pass
        try:
            return write_state(self._disk, self._names.new, tables, position)
        except BaseException:
            self._remove(self._names.new)
            raise

    def _rotate(self) -> None:
        """Open the next journal; when this raises, the present one goes on."""
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

    def _install(self, size: int, position: Position, previous: int | None = None) -> None:
        """Give the new state file its name, durably, and remove what nobody needs any more.

        The present one becomes the previous one, unless `previous` says that the previous one is
        to stay, and which journal that goes on with.
        """
        names = self._names
        if previous is None:
            self._keep_previous()
        self._disk.rename(names.new, names.state)
        self._disk.fsync_dir(names.directory)
        needed = self._folded.journal if previous is None else previous
        self._folded = position
        self.state_bytes = size
        for number in names.journals():
            if number < needed:
                self._remove(names.journal(number))

    def _keep_previous(self) -> None:
        """Let the state file be the previous one too, until it is replaced."""
        names = self._names
        self._remove(names.linked)
        try:
            self._disk.link(names.state, names.linked)
            self._disk.rename(names.linked, names.previous)
        except OSError as error:
            # Not every file system has links. What is kept must not be older than the journals.
            log.warning("no previous state file is kept beside %s: %s", names.state, error)
            self._remove(names.previous)

    def _remove(self, path: Path) -> None:
        """Remove a file that does no harm if it stays."""
        try:
            self._disk.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("%s could not be removed: %s", path, error)

    # ----------------------------------------------------------------------------------- closing

    def close(self) -> None:
        """Fold, and let go. A fold that fails loses nothing: the journal has it all."""
        if self._lock is None:
            return
        try:
            if self._is_poisoned:
                with self._folding, self._committing:
                    self._repair()
            self.checkpoint()
        except OSError as error:
            log.error(
                "the state file %s is behind, its journal has the rest: %s",
                self._names.state,
                error,
            )
        finally:
            self._release()

    def _release(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
