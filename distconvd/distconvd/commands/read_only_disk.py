"""Provide a read-only view of a disk: existing files can be read, and writes are dropped.

A store that is opened recovers what a crash left: it renames, rewrites and removes files. On a `DiskView`
all that happens in a table of names in memory, so the store sees its own changes and the real disk stays
as it is. `distconvd audit`, `check` and `export` open stores on it.

Rules: no call changes the real disk. Contents that are written are counted and dropped, since a
recovery may rewrite the whole store; reading them back is an error. Locks are shared ones on existing
files: a running daemon is noticed, and none can start meanwhile.
"""

import errno
import fcntl
import os
from pathlib import Path

from distconvd.disk import REAL_DISK, Disk, DiskFile, DiskLock, OpenMode, flock_nowait


class _Written:
    """A file that was written here; its contents were dropped."""

    def __init__(self, size: int = 0) -> None:
        self.size = size


_Node = Path | _Written
"""What a name refers to: a real file, perhaps under another name, or one that was written here."""


class DiskView:
    """`distconvd.disk.Disk` that changes nothing.

    Args:
        real: the disk to view.
    """

    def __init__(self, real: Disk = REAL_DISK) -> None:
        self._real = real
        self._names: dict[Path, _Node | None] = {}
        """Names that changed; None: the name was removed."""
        self._made_directories: set[Path] = set()
        """Directories that were made here."""
        self._shared = _SharedLocks()

    def open(self, path: Path, mode: OpenMode) -> DiskFile:
        """Open a file; one that was written here cannot be read."""
        if mode == "create":
            if not self.is_directory(path.parent):
                raise _missing(path)
            written = _Written()
            self._names[path] = written
            return _Sink(written)
        node = self._node(path)
        if mode == "append":
            written = node if isinstance(node, _Written) else _Written(self._real.size(node))
            self._names[path] = written
            return _Sink(written)
        if isinstance(node, _Written):
            raise OSError(errno.EOPNOTSUPP, "writes to a read-only view are dropped", str(path))
        return self._real.open(node, "read")

    def size(self, path: Path) -> int:
        """Return the size of a file."""
        node = self._node(path)
        return node.size if isinstance(node, _Written) else self._real.size(node)

    def is_directory(self, path: Path) -> bool:
        """Return whether a directory exists."""
        if path in self._names:
            return False
        return path in self._made_directories or self._real.is_directory(path)

    def listdir(self, path: Path) -> list[str]:
        """Return the names in a directory."""
        names: set[str] = set()
        if path not in self._made_directories:
            names.update(self._real.listdir(path))
        names |= {made.name for made in self._made_directories if made.parent == path}
        for changed, node in self._names.items():
            if changed.parent == path:
                (names.discard if node is None else names.add)(changed.name)
        return list(names)

    def mkdir(self, path: Path) -> None:
        """Make a directory here."""
        if self._exists(path):
            raise FileExistsError(errno.EEXIST, "the name is taken", str(path))
        self._made_directories.add(path)
        self._names.pop(path, None)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file here; stores never rename directories."""
        node = self._node(source)
        self._names[target] = node
        self._names[source] = None

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name here."""
        if self._exists(target):
            raise FileExistsError(errno.EEXIST, "the name is taken", str(target))
        self._names[target] = self._node(source)

    def unlink(self, path: Path) -> None:
        """Remove a name here."""
        self._node(path)
        self._names[path] = None

    def fsync_dir(self, path: Path) -> None:
        """Do nothing: there is nothing to make durable."""

    def lock(self, path: Path, note: str) -> DiskLock:
        """Take a shared lock on the daemon's lock file; without that file no process has the lock.

        Raises:
            BlockingIOError: a process has it; the error's `strerror` is what it wrote into the file.
        """
        self._shared = _SharedLocks()
        try:
            self._shared.add(path)
        except FileNotFoundError:
            pass  # no process has it
        return self._shared

    def lock_existing(self, path: Path) -> DiskLock:
        """Take a shared lock on a real file; one that was written here needs none.

        It is released with the lock on the lock file: a store releases it when it has replaced the
        file, which does not happen to the real one.
        """
        node = self._node(path)
        if not isinstance(node, _Written):
            self._shared.add(node)
        return _SharedLocks()

    def _node(self, path: Path) -> _Node:
        """Return what a name refers to; raises `FileNotFoundError`."""
        if path not in self._names:
            self._real.size(path)  # raises if there is no such file
            return path
        node = self._names[path]
        if node is None:
            raise _missing(path)
        return node

    def _exists(self, path: Path) -> bool:
        if self.is_directory(path):
            return True
        try:
            self._node(path)
        except FileNotFoundError:
            return False
        return True


def _missing(path: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


class _Sink:
    """An open file whose writes are dropped."""

    def __init__(self, written: _Written) -> None:
        self._written = written

    def read(self, size: int) -> bytes:
        raise OSError(errno.EBADF, "the file is open for writing")

    def write(self, data: bytes) -> int:
        self._written.size += len(data)
        return len(data)

    def truncate(self, size: int) -> None:
        self._written.size = size

    def fsync(self) -> None:
        pass

    def fdatasync(self) -> None:
        pass

    def close(self) -> None:
        pass


class _SharedLocks:
    """Descriptors with shared flocks."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def add(self, path: Path) -> None:
        """Lock one more file; raises `BlockingIOError` or `FileNotFoundError`."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            flock_nowait(descriptor, path, fcntl.LOCK_SH)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptors.append(descriptor)

    def release(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())
