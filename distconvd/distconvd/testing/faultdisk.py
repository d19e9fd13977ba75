"""Provide a file system in memory that fails on demand, and whose power can be cut.

It numbers every operation that changes something: create, write, truncate, fsync, fdatasync,
rename, link, unlink, mkdir and the sync of a directory. A test runs its work once to learn how
many there are, then again for each number with a fault there (`fail`) or a power cut there
(`cut_power_at`), and checks what is left (`after_power_cut`).

A power cut leaves only what POSIX guarantees:

- The contents of a file are those of the last sync; each block written since has its new contents or
  its old ones (zeros if there were none), and the size may be anything between.
- Each name that was created, changed or removed since its directory was synced may have changed or
  not, independently of the others. A rename is one step within a directory; into another one, the
  file may be left with both names, but not without any. Syncing a file does not make its name durable.
- After a sync that failed, the blocks that it should have written are lost: reading them returns the
  new contents, and later syncs succeed, but the disk keeps the old ones. (Kernels are somewhat better
  than that, but a program must not rely on it.)

`restart` is a kill of the process without a power cut: all contents stay, and the locks are free.
"""

import errno
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from distconvd.disk import DiskFile, DiskLock, OpenMode

Fault = Literal["ENOSPC", "EIO", "short", "torn"]
"""`short`: a write writes half and returns that; `torn`: it writes half and raises ENOSPC. These two
apply to writes only; other operations succeed."""

Operation = Literal[
    "create", "write", "truncate", "fsync", "fdatasync", "rename", "link", "unlink", "mkdir",
    "fsync_dir",
]  # fmt: skip

_NEED_SPACE: tuple[Operation, ...] = ("create", "write", "link", "mkdir")

BLOCK_BYTES = 64
"""Small, so that even a test's small files have several blocks that a power cut can separate."""


class PowerCut(BaseException):
    """The power is gone: raised by the operation where it was cut, and by every one after it.

    Not an `Exception`, since no program can handle a power cut.
    """


class Survival(NamedTuple):
    """Decides which unsynced changes survive a power cut.

    Attributes:
        name: shown in the message of a failed test.
        names: returns whether one change of a name is on the disk.
        blocks: returns whether one block of a file is on the disk.
    """

    name: str
    names: Callable[[], bool]
    blocks: Callable[[], bool]


def survivals(seed: int, draws: int) -> list[Survival]:
    """Return the four extremes, and `draws` random mixtures that depend only on `seed`."""
    extremes = [
        Survival("nothing", lambda: False, lambda: False),
        Survival("everything", lambda: True, lambda: True),
        Survival("names without contents", lambda: True, lambda: False),
        Survival("contents without names", lambda: False, lambda: True),
    ]
    return extremes + [_mixture(seed, draw) for draw in range(draws)]


def _mixture(seed: int, draw: int) -> Survival:
    chance = random.Random(seed * 1000 + draw)

    def coin() -> bool:
        return chance.random() < 0.5

    return Survival(f"seed {seed}, draw {draw}", coin, coin)


class _Node:
    """A file's contents, both as programs see them and as they are on the disk."""

    def __init__(self, contents: bytes = b"") -> None:
        self.data = bytearray(contents)
        self.durable = bytes(contents)
        self.dirty: set[int] = set()
        self.resized = False
        self.lost: set[int] = set()

    def touch(self, start: int, end: int) -> None:
        self.resized = True
        self.dirty.update(range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES)))

    def sync(self) -> None:
        self.durable = self._written(lambda: True)
        self._clean()

    def forget(self) -> None:
        """Mark the dirty blocks as clean and lost, as a kernel does after a failed sync."""
        self.lost |= self.dirty
        self._clean()

    def _clean(self) -> None:
        self.dirty.clear()
        self.resized = False

    def after_power_cut(self, survival: Survival) -> bytes:
        return self._written(survival.blocks)

    def _written(self, survives: Callable[[], bool]) -> bytes:
        size = len(self.data) if self.resized and survives() else len(self.durable)
        disk = bytearray(self.durable.ljust(len(self.data), b"\0"))
        for block in sorted(self.dirty - self.lost):
            part = slice(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)
            if survives():
                new = self.data[part]
                disk[part.start : part.start + len(new)] = new
                size = max(size, min(part.start + len(new), len(self.data)))
        return bytes(disk[:size])


class _NameChange:
    """Names added (with a node or directory) or removed (None), in one step.

    A rename into another directory is two changes, of which the second `needs` the first.
    """

    def __init__(
        self,
        directory: Path,
        names: "dict[Path, _Node | _Directory | None]",
        needs: "_NameChange | None" = None,
    ) -> None:
        self.directory = str(directory)
        self.names = {str(path): entry for path, entry in names.items()}
        self.needs = needs

    def apply(self, entries: "_Entries") -> None:
        for path, entry in self.names.items():
            if entry is None:
                entries.pop(path, None)
            else:
                entries[path] = entry


class _Directory:
    """A directory; its entries are not kept here, but as paths in `_Entries`."""


_Entries = dict[str, _Node | _Directory]
"""Files and directories by absolute path, as text, which is much faster to compare than `Path`."""


class FaultDisk:
    """See the module. At first it has one directory, `/`.

    Attributes:
        operations: the operations so far, in order, with their paths.
    """

    def __init__(self) -> None:
        self.operations: list[tuple[Operation, Path]] = []
        self._now: _Entries = {"/": _Directory()}
        self._durable: _Entries = dict(self._now)
        self._pending: list[_NameChange] = []
        self._faults: dict[int, Fault] = {}
        self._lasting: tuple[int, Fault] | None = None
        self._cut_at: int | None = None
        self._locks: dict[Path, str] = {}
        self._data_locks: set[_Node] = set()
        self._lock = threading.RLock()

    # ------------------------------------------------------------------------- control by the test

    def fail(self, number: int, fault: Fault, *, lasting: bool = False) -> None:
        """Let operation `number` (from 0) fail and, if `lasting`, all later ones.

        A lasting ENOSPC does not affect operations that need no space.
        """
        if lasting:
            self._lasting = number, fault
        else:
            self._faults[number] = fault

    def fail_all(self, fault: Fault) -> None:
        """Let every operation from now on fail; with ENOSPC, those that need space."""
        self.fail(len(self.operations), fault, lasting=True)

    def heal(self) -> None:
        """Remove all faults."""
        self._lasting = None
        self._faults.clear()

    def cut_power_at(self, number: int) -> None:
        """Let operation `number` and all later ones raise `PowerCut` and do nothing."""
        self._cut_at = number

    def cut_power(self) -> None:
        """Cut the power now."""
        self._cut_at = len(self.operations)

    def restart(self) -> None:
        """Pretend that the process was killed: free its locks, and restore the power if it was cut."""
        self._locks.clear()
        self._data_locks.clear()
        self._cut_at = None

    def after_power_cut(self, survival: Survival) -> "FaultDisk":
        """Return a healthy disk with the contents left by a power cut at this point."""
        entries = dict(self._durable)
        applied: set[int] = set()
        for change in self._pending:
            if (change.needs is None or id(change.needs) in applied) and survival.names():
                change.apply(entries)
                applied.add(id(change))
        after = FaultDisk()
        for path, entry in sorted(entries.items()):
            if path != "/" and not isinstance(after._now.get(_parent(path)), _Directory):
                continue  # its directory's own name did not survive
            if isinstance(entry, _Node):
                entry = _Node(entry.after_power_cut(survival))
            after._now[path] = entry
        after._durable = dict(after._now)
        return after

    def copy(self) -> "FaultDisk":
        """Return a healthy disk on which everything that programs see here is durable."""
        copy = FaultDisk()
        for path, entry in self._now.items():
            copy._now[path] = _Node(bytes(entry.data)) if isinstance(entry, _Node) else entry
        copy._durable = dict(copy._now)
        return copy

    def contents(self, path: Path) -> bytes:
        """Return what a program would read."""
        return bytes(self._file(path).data)

    def put(self, path: Path, contents: bytes) -> None:
        """Create a durable file and its directories, without counting an operation."""
        for parent in reversed(path.parents):
            self._now.setdefault(str(parent), _Directory())
            self._durable.setdefault(str(parent), _Directory())
        self._now[str(path)] = self._durable[str(path)] = _Node(contents)

    def files(self) -> list[Path]:
        """Return all files that programs see."""
        return sorted(Path(path) for path, entry in self._now.items() if isinstance(entry, _Node))

    # ------------------------------------------------------------------------- `distconvd.disk`

    def open(self, path: Path, mode: OpenMode) -> DiskFile:
        """Open a file."""
        with self._lock:
            if mode != "create":
                return _File(self, path, self._file(path))
            self._in_directory(path)
            self.operation("create", path)
            entry = self._now.get(str(path))
            if isinstance(entry, _Directory):
                raise _error(errno.EISDIR, path)
            if entry is None:
                entry = _Node()
                self._change(_NameChange(path.parent, {path: entry}))
            else:
                _cut(entry, 0)
            return _File(self, path, entry)

    def size(self, path: Path) -> int:
        """Return the size of a file."""
        return len(self._file(path).data)

    def is_directory(self, path: Path) -> bool:
        """Return whether a directory exists."""
        return isinstance(self._now.get(str(path)), _Directory)

    def listdir(self, path: Path) -> list[str]:
        """Return the names in a directory."""
        with self._lock:
            if not self.is_directory(path):
                raise _error(errno.ENOTDIR if str(path) in self._now else errno.ENOENT, path)
            start = f"{path}/".replace("//", "/")
            inside = [entry[len(start) :] for entry in self._now if entry.startswith(start)]
            names = [name for name in inside if name and "/" not in name]
        return sorted(names, key=lambda name: hash((name, "in no order")))

    def mkdir(self, path: Path) -> None:
        """Make a directory."""
        with self._lock:
            self._in_directory(path)
            self.operation("mkdir", path)
            if str(path) in self._now:
                raise _error(errno.EEXIST, path)
            self._change(_NameChange(path.parent, {path: _Directory()}))

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file."""
        with self._lock:
            node = self._file(source)
            self._in_directory(target)
            self.operation("rename", target)
            if self._now.get(str(target)) is node:
                return
            if source.parent == target.parent:
                self._change(_NameChange(target.parent, {source: None, target: node}))
                return
            arrival = _NameChange(target.parent, {target: node})
            self._change(arrival)
            self._change(_NameChange(source.parent, {source: None}, arrival))

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name."""
        with self._lock:
            node = self._file(source)
            self._in_directory(target)
            self.operation("link", target)
            if str(target) in self._now:
                raise _error(errno.EEXIST, target)
            self._change(_NameChange(target.parent, {target: node}))

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        with self._lock:
            self._file(path)
            self.operation("unlink", path)
            self._change(_NameChange(path.parent, {path: None}))

    def fsync_dir(self, path: Path) -> None:
        """Make a directory's entries durable."""
        with self._lock:
            self.operation("fsync_dir", path)
            wanted = [change for change in self._pending if change.directory == str(path)]
            wanted += [change.needs for change in wanted if change.needs is not None]
            for change in [change for change in self._pending if change in wanted]:
                change.apply(self._durable)
                self._pending.remove(change)

    def lock(self, path: Path, note: str) -> DiskLock:
        """Take a lock."""
        with self._lock:
            if path in self._locks:
                raise BlockingIOError(errno.EAGAIN, self._locks[path], str(path))
            self._locks[path] = note
        return _Lock(lambda: self._locks.pop(path, None))

    def lock_existing(self, path: Path) -> DiskLock:
        """Lock a file's contents, whatever happens to its name."""
        with self._lock:
            node = self._file(path)
            if node in self._data_locks:
                raise _error(errno.EAGAIN, path)
            self._data_locks.add(node)
        return _Lock(lambda: self._data_locks.discard(node))

    def unlock_by_removing(self, path: Path) -> None:
        """Pretend that a person removed a lock file: its name is free, locks on data stay."""
        self._locks.pop(path, None)

    # --------------------------------------------------------------------------------- internal

    def operation(self, operation: Operation, path: Path) -> Fault | None:
        """Number an operation; raise its fault, or return how its write must fail."""
        number = len(self.operations)
        if self._cut_at is not None and number >= self._cut_at:
            raise PowerCut(f"before {operation} of {path}, operation {number}")
        self.operations.append((operation, path))
        fault = self._faults.get(number)
        if fault is None and self._lasting is not None and number >= self._lasting[0]:
            fault = self._lasting[1]
            if fault == "ENOSPC" and operation not in _NEED_SPACE:
                return None
        if fault is None:
            return None
        if fault in ("short", "torn"):
            return fault if operation == "write" else None
        raise _error(errno.ENOSPC if fault == "ENOSPC" else errno.EIO, path)

    def _change(self, change: _NameChange) -> None:
        change.apply(self._now)
        self._pending.append(change)

    def _file(self, path: Path) -> _Node:
        entry = self._now.get(str(path))
        if not isinstance(entry, _Node):
            raise _error(errno.ENOENT if entry is None else errno.EISDIR, path)
        return entry

    def _in_directory(self, path: Path) -> None:
        if not self.is_directory(path.parent):
            raise _error(errno.ENOENT, path.parent)


class _File:
    """An open file."""

    def __init__(self, disk: FaultDisk, path: Path, node: _Node) -> None:
        self._disk = disk
        self._path = path
        self._node = node
        self._read_bytes = 0

    def read(self, size: int) -> bytes:
        part = bytes(self._node.data[self._read_bytes : self._read_bytes + size])
        self._read_bytes += len(part)
        return part

    def write(self, data: bytes) -> int:
        fault = self._disk.operation("write", self._path)
        taken = data if fault is None else data[: len(data) // 2]
        start = len(self._node.data)
        self._node.data += taken
        self._node.touch(start, start + len(taken))
        if fault == "torn":
            raise _error(errno.ENOSPC, self._path)
        return len(taken)

    def truncate(self, size: int) -> None:
        self._disk.operation("truncate", self._path)
        _cut(self._node, size)

    def fsync(self) -> None:
        self._sync("fsync")

    def fdatasync(self) -> None:
        self._sync("fdatasync")

    def _sync(self, operation: Operation) -> None:
        try:
            self._disk.operation(operation, self._path)
        except OSError:
            self._node.forget()
            raise
        self._node.sync()

    def close(self) -> None:
        pass


class _Lock:
    """A lock that has been taken."""

    def __init__(self, release: Callable[[], object]) -> None:
        self._release = release

    def release(self) -> None:
        self._release()


def _cut(node: _Node, size: int) -> None:
    old = len(node.data)
    del node.data[size:]
    node.touch(min(size, old), old)


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _error(code: int, path: Path) -> OSError:
    return OSError(code, os.strerror(code), str(path))
