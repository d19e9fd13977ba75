"""Write the spool store's files so that each batch becomes durable, all or none.

A batch is written in these steps; `docs/storage.md` shows what a crash at each leaves:

1. Write each record to a file of its own in `tmp/`, and sync it.
2. Write a manifest to `tmp/`, sync and rename it: which of these files goes where, what is removed.
3. Sync `tmp/`: *from here on the batch counts*. A failure before this rolls all of it back.
4. Rename the files to their places, remove the deleted ones, and sync each directory once.
5. Remove the manifest. The next batch's sync of `tmp/` makes that durable, in time: a manifest
   that comes back after a crash finds its own files in place, and nothing newer.

If step 4 fails, the batch is durable nevertheless, and is finished before the next one begins.
When opened, the store finishes every batch whose files all exist, in `tmp/` or in place; one that
lacks a file never reached step 3.

A record's file contains the record's place in the order of its table (`seq`), the batch that wrote
it, its key and the record: `{"seq":7,"batch":12,"key":"1754_1","record":{…}}`.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from distconv_plugins.shared.os_errors import describe_error
from distconv_plugins.stores.encoded import BAD_JSON, checked_changes, is_object, one_line
from distconv_plugins.stores.spool_store.names import Tree
from distconvd.disk import Disk, DiskLock, make_directories, read_all, write_all
from distconvd.errors import StoreError, StoreLocked, StoreTooNew
from distconvd.store import TABLES, Change, Damage, Snapshot, Table

log = logging.getLogger("distconvd.store")

FORMAT = 1
ACKNOWLEDGED = ".acknowledged"
"""Ends the names of corrupt files that the operator knows of."""


class _Format(msgspec.Struct):
    format: int
    store: str = "spool"


class _File(msgspec.Struct):
    seq: int
    batch: int
    key: str
    record: msgspec.Raw


class _Entry(msgspec.Struct, array_like=True):
    """One line of a manifest."""

    table: Table
    key: str
    put: bool


_format = msgspec.json.Decoder(_Format)
_file = msgspec.json.Decoder(_File)
_manifest = msgspec.json.Decoder(list[_Entry])


class SpoolFiles:
    """The tree of one spool store. All calls block; one thread at a time.

    Args:
        disk: the file system.
        directory: absolute path of the tree.
    """

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self._tree = Tree(directory)
        self._lock: DiskLock | None = None
        self._data_lock: DiskLock | None = None
        """On a file that stays while the store is open: the lock file's name may be removed."""
        self._damage: list[Damage] = []
        self._order: dict[Table, dict[str, int]] = {table: {} for table in TABLES}
        self._next_seq = 1
        self._next_batch = 1
        self._unfinished: tuple[int, list[_Entry]] | None = None
        """A batch that counts, and must be finished before the next begins."""
        self._must_clean_tmp = False
        """Whether a failed batch left files that must be removed before the next begins."""
        self._durable: set[Path] = set()
        """Directories whose own names are known to be durable."""

    # ---------------------------------------------------------------------------------- opening

    def open(self) -> Snapshot:
        """Lock, recover and read everything.

        Raises:
            StoreLocked: another process uses the store.
            StoreTooNew: a newer version wrote it.
            StoreError: the directory does not belong to a spool store.
            OSError: the disk failed.
        """
        make_directories(self._disk, self._tree.root)
        strangers = self._tree.strangers(self._disk)
        if strangers:
            raise StoreError(
                f"{self._tree.root} contains files that are not a spool store's "
                f"({strangers[0]!r}); name a directory that is empty or does not exist"
            )
        self._lock = self._take_lock()
        try:
            self._check_format()
            self._data_lock = self._lock_data()
            self._make_directory(self._tree.tmp)
            for batch in self._tree.manifests(self._disk):
                self._recover(batch)
            self._clean_tmp()
            snapshot = self._read()
            self._damage = self._find_damage()
            return snapshot
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> DiskLock:
        try:
            return self._disk.lock(self._tree.lock, f"{os.getpid()}")
        except BlockingIOError as error:
            raise StoreLocked(
                f"the spool store {self._tree.root} is in use by process {error.strerror or '?'}; "
                "stop that daemon first, or give this one a directory of its own"
            ) from error

    def _lock_data(self) -> DiskLock:
        try:
            return self._disk.lock_existing(self._tree.format)
        except BlockingIOError as error:
            raise StoreLocked(
                f"the spool store {self._tree.root} is in use by another process, although "
                f"{self._tree.lock} is not locked (was it removed?); stop that daemon first, or give "
                "this one a directory of its own"
            ) from error

    def _check_format(self) -> None:
        path = self._tree.format
        try:
            found = _format.decode(read_all(self._disk, path))
        except FileNotFoundError:
            new = path.with_name("format.json.new")
            self._remove(new)  # left by a failed run; its sync may have failed, so do not reuse it
            self._write(new, msgspec.json.encode(_Format(FORMAT)) + b"\n")
            self._disk.rename(new, path)
            self._disk.fsync_dir(path.parent)
            return
        except BAD_JSON as error:
            raise StoreError(
                f"{path} cannot be read ({error}); if this is a spool store, write "
                f'{{"format":{FORMAT}}} to it, otherwise name another directory'
            ) from error
        if found.format > FORMAT:
            raise StoreTooNew(
                f"the spool store {path.parent} has format {found.format}, and this version "
                f"supports up to {FORMAT}; start the newer version that wrote it, or restore a "
                "backup of this one's"
            )

    def _recover(self, batch: int) -> None:
        """Finish a batch that a crash interrupted, or drop it."""
        self._next_batch = max(self._next_batch, batch + 1)
        path = self._tree.manifest(batch)
        try:
            entries = _manifest.decode(read_all(self._disk, path))
        except BAD_JSON:
            # It was synced before it got this name, so it has been damaged since.
            self._set_batch_aside(batch)
            return
        if all(self._is_there(batch, index, entry) for index, entry in enumerate(entries)):
            self._finish(batch, entries)
        else:
            log.warning("batch %d of %s was never acknowledged; dropped", batch, self._tree.root)

    def _set_batch_aside(self, batch: int) -> None:
        self._make_directory(self._tree.corrupt)
        for name in self._disk.listdir(self._tree.tmp):
            if name.startswith(f"{batch}-") or name == self._tree.manifest(batch).name:
                self._disk.rename(self._tree.tmp / name, self._tree.corrupt / f"tmp-{name}")
        self._disk.fsync_dir(self._tree.corrupt)
        log.error(
            "the manifest of batch %d of %s is damaged; its files are kept in %s",
            batch,
            self._tree.root,
            self._tree.corrupt,
        )

    def _is_there(self, batch: int, index: int, entry: _Entry) -> bool:
        if not entry.put or self._tree.new(batch, index).name in self._disk.listdir(self._tree.tmp):
            return True
        try:
            placed = self._read_file(self._tree.record(entry.table, entry.key))
        except FileNotFoundError:
            return False
        return placed is not None and placed.batch == batch

    def _clean_tmp(self) -> None:
        for name in self._disk.listdir(self._tree.tmp):
            self._disk.unlink(self._tree.tmp / name)
        self._disk.fsync_dir(self._tree.tmp)

    # ---------------------------------------------------------------------------------- reading

    def _read(self) -> Snapshot:
        tables = {table: self._read_table(table) for table in TABLES}
        return Snapshot(**tables)

    def _read_table(self, table: Table) -> dict[str, bytes]:
        found: list[tuple[int, str, bytes]] = []
        for path in self._tree.records(self._disk, table):
            file = self._read_file(path)
            if file is None or path != self._tree.record(table, file.key):
                self._set_aside(path)
                continue
            found.append((file.seq, file.key, bytes(file.record)))
            self._next_batch = max(self._next_batch, file.batch + 1)
        found.sort()
        if found:
            self._next_seq = max(self._next_seq, found[-1][0] + 1)
        self._order[table] = {key: seq for seq, key, _record in found}
        return {key: record for _seq, key, record in found}

    @property
    def damage(self) -> list[Damage]:
        """The files that were set aside and not acknowledged, also by earlier runs."""
        return list(self._damage)

    def _find_damage(self) -> list[Damage]:
        if not self._disk.is_directory(self._tree.corrupt):
            return []
        return [
            Damage(
                f"{self._tree.corrupt / name} is not a record, or not the record of that name",
                self._tree.named_by(name),
            )
            for name in sorted(self._disk.listdir(self._tree.corrupt))
            if not name.endswith(ACKNOWLEDGED)
        ]

    def acknowledge_damage(self) -> None:
        """Forget the damage, durably: the files stay under another name."""
        if self._lock is None:
            raise StoreError("the store is closed")
        if not self._damage:
            return
        for name in self._disk.listdir(self._tree.corrupt):
            if not name.endswith(ACKNOWLEDGED):
                path = self._tree.corrupt / name
                self._disk.rename(path, path.with_name(name + ACKNOWLEDGED))
        self._disk.fsync_dir(self._tree.corrupt)
        self._damage = []

    def _read_file(self, path: Path) -> _File | None:
        """Return the content of a record's file; None if it is not valid."""
        try:
            file = _file.decode(one_line(read_all(self._disk, path)))
        except BAD_JSON:
            return None
        return file if is_object(bytes(file.record)) else None

    def _set_aside(self, path: Path) -> None:
        self._make_directory(self._tree.corrupt)
        target = self._tree.corrupt / f"{path.parts[-3]}-{path.name}"
        self._disk.rename(path, target)
        self._disk.fsync_dir(self._tree.corrupt)
        self._disk.fsync_dir(path.parent)
        log.error("%s is not a record, or not the record of that name; kept as %s", path, target)

    # ------------------------------------------------------------------------------- committing

    def commit(self, changes: Sequence[Change]) -> None:
        """Make a batch durable; `OSError` or `StoreError` leaves everything as it was."""
        if self._lock is None:
            raise StoreError("the store is closed")
        last = {(change.table, change.key): change for change in checked_changes(changes)}
        self._finish_earlier()
        if not changes:
            return
        batch = self._next_batch
        self._next_batch += 1
        order = self._order_after(changes)
        entries = [_Entry(table, key, record is not None) for table, key, record in last.values()]
        try:
            self._prepare(batch, list(last.values()), order)
        except BaseException:
            self._rollback()
            raise
        self._set_order(order)
        try:
            self._finish(batch, entries)
        except OSError as error:
            log.error(
                "batch %d is durable, but its files are not in place yet: %s",
                batch,
                describe_error(error),
            )
            self._unfinished = batch, entries

    def _finish_earlier(self) -> None:
        """Finish an earlier batch that counts; remove the files of one that failed."""
        if self._unfinished is not None:
            self._finish(*self._unfinished)
            self._unfinished = None
        if self._must_clean_tmp:
            self._clean_tmp()
            self._must_clean_tmp = False

    def _order_after(self, changes: Sequence[Change]) -> dict[tuple[Table, str], int | None]:
        """Return the place in the order of each changed record; None for a deleted one."""
        order: dict[tuple[Table, str], int | None] = {}
        for table, key, record in changes:
            place = order.get((table, key), self._order[table].get(key))
            if record is None:
                place = None
            elif place is None:
                place = self._next_seq
                self._next_seq += 1
            order[table, key] = place
        return order

    def _set_order(self, order: dict[tuple[Table, str], int | None]) -> None:
        for (table, key), place in order.items():
            if place is None:
                self._order[table].pop(key, None)
            else:
                self._order[table][key] = place

    def _prepare(
        self,
        batch: int,
        changes: Sequence[Change],
        order: dict[tuple[Table, str], int | None],
    ) -> None:
        """Do steps 1 to 3."""
        entries: list[_Entry] = []
        for index, (table, key, record) in enumerate(changes):
            entries.append(_Entry(table, key, record is not None))
            place = order[table, key]
            if record is None or place is None:
                continue
            # Made here, where a failure still rolls back: step 4 must only rename.
            shard = self._tree.record(table, key).parent
            self._make_directory(shard.parent)
            self._make_directory(shard)
            file = _File(place, batch, key, msgspec.Raw(record))
            self._write(self._tree.new(batch, index), msgspec.json.encode(file) + b"\n")
        manifest = self._tree.manifest(batch)
        unnamed = manifest.with_suffix(".new")
        self._write(unnamed, msgspec.json.encode(entries) + b"\n")
        self._disk.rename(unnamed, manifest)
        self._disk.fsync_dir(self._tree.tmp)

    def _rollback(self) -> None:
        """Remove what steps 1 to 3 left; durably, since a manifest may be among it."""
        self._must_clean_tmp = True
        try:
            self._finish_earlier()
        except OSError as error:
            # The caller raises the first error; the next commit begins with this cleaning.
            log.warning("%s could not be cleaned up: %s", self._tree.tmp, describe_error(error))

    def _finish(self, batch: int, entries: Sequence[_Entry]) -> None:
        """Do steps 4 and 5; may be repeated after a part of them was done."""
        touched: dict[Path, None] = {}
        for index, entry in enumerate(entries):
            place = self._tree.record(entry.table, entry.key)
            try:
                if entry.put:
                    self._disk.rename(self._tree.new(batch, index), place)
                else:
                    self._disk.unlink(place)
            except FileNotFoundError:
                pass  # done already, or there was nothing to delete
            if self._disk.is_directory(place.parent):
                touched[place.parent] = None
        for directory in touched:
            self._disk.fsync_dir(directory)
        self._remove(self._tree.manifest(batch))

    def _make_directory(self, path: Path) -> None:
        """Make a directory, durably; an existing one may not be, if its run was killed."""
        if path in self._durable:
            return
        if not self._disk.is_directory(path):
            self._disk.mkdir(path)
        self._disk.fsync_dir(path.parent)
        self._durable.add(path)

    def _write(self, path: Path, contents: bytes) -> None:
        file = self._disk.open(path, "create")
        try:
            write_all(file, contents)
            file.fsync()
        finally:
            file.close()

    def _remove(self, path: Path) -> None:
        try:
            self._disk.unlink(path)
        except FileNotFoundError:
            pass

    # ---------------------------------------------------------------------------------- closing

    def close(self) -> None:
        """Release the locks; an unfinished batch is finished when the store is opened again."""
        if self._data_lock is not None:
            self._data_lock.release()
            self._data_lock = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
