"""Define the file system as stores use it: every operation that durability depends on.

Stores reach the disk only through `Disk`, so a test can number each write, sync, rename, truncate,
unlink and mkdir, make any one of them fail, or cut the power after it (`distconvd.testing`).

Rules: all calls block, so they run in a thread; errors are `OSError`s; `write` may be short, as
the system call may, and the caller continues or gives up. Nothing here syncs by itself.
"""

import errno
import fcntl
import os
from pathlib import Path
from typing import Literal, Protocol

OpenMode = Literal["read", "create", "append"]
"""`create` makes the file or empties it; `append` needs an existing file. Both write at its end only."""

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

_FLAGS: dict[OpenMode, int] = {
    "read": os.O_RDONLY,
    "create": os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND,
    "append": os.O_WRONLY | os.O_APPEND,
}


class DiskFile(Protocol):
    """One open file."""

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes from where the last read ended; empty at the end."""
        ...

    def write(self, data: bytes) -> int:
        """Append, and return how many bytes were written; fewer than given is not an error."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""
        ...

    def fsync(self) -> None:
        """Make contents and metadata durable."""
        ...

    def fdatasync(self) -> None:
        """Make contents durable, and of the metadata what reading them back needs."""
        ...

    def close(self) -> None:
        """Release the file; never raises."""
        ...


class DiskLock(Protocol):
    """A lock; the system releases it when the process ends, however it ends."""

    def release(self) -> None:
        """Release the lock; never raises."""
        ...


class Disk(Protocol):
    """The operations on names. Paths are absolute."""

    def open(self, path: Path, mode: OpenMode) -> DiskFile:
        """Open a file."""
        ...

    def size(self, path: Path) -> int:
        """Return the size of a file in bytes; raises `FileNotFoundError`."""
        ...

    def is_directory(self, path: Path) -> bool:
        """Return whether a directory exists."""
        ...

    def listdir(self, path: Path) -> list[str]:
        """Return the names in a directory, in no order."""
        ...

    def mkdir(self, path: Path) -> None:
        """Make one directory, accessible to its owner only."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Rename `source` to `target` in one step, replacing what had that name."""
        ...

    def link(self, source: Path, target: Path) -> None:
        """Give `source` a second name; raises `FileExistsError` when it is taken."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a name; raises `FileNotFoundError`."""
        ...

    def fsync_dir(self, path: Path) -> None:
        """Make what was created, renamed and removed in a directory durable."""
        ...

    def lock(self, path: Path, note: str) -> DiskLock:
        """Lock the file at `path` and write `note` into it.

        Raises:
            BlockingIOError: another process has the lock; the error's `strerror` is its note.
        """
        ...

    def lock_existing(self, path: Path) -> DiskLock:
        """Lock an existing file without changing it; the lock stays with the file when it is renamed
        or its name is removed.

        Raises:
            BlockingIOError: another process has the lock.
            FileNotFoundError: there is no such file.
        """
        ...


class RealDisk:
    """The operating system's file system."""

    def open(self, path: Path, mode: OpenMode) -> DiskFile:
        """Open a file."""
        return _RealFile(os.open(path, _FLAGS[mode] | os.O_CLOEXEC, FILE_MODE))

    def size(self, path: Path) -> int:
        """Return the size of a file in bytes."""
        return path.stat().st_size

    def is_directory(self, path: Path) -> bool:
        """Return whether a directory exists."""
        return path.is_dir()

    def listdir(self, path: Path) -> list[str]:
        """Return the names in a directory."""
        return os.listdir(path)

    def mkdir(self, path: Path) -> None:
        """Make one directory."""
        path.mkdir(DIRECTORY_MODE)

    def rename(self, source: Path, target: Path) -> None:
        """Rename, replacing."""
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name."""
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        path.unlink()

    def fsync_dir(self, path: Path) -> None:
        """Make a directory's entries durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, path: Path, note: str) -> DiskLock:
        """Take a lock file, without waiting."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            flock_nowait(descriptor, path, fcntl.LOCK_EX)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, note.encode() + b"\n", 0)
        except OSError:
            os.close(descriptor)
            raise
        return _RealLock(descriptor)

    def lock_existing(self, path: Path) -> DiskLock:
        """Lock an existing file, without waiting."""
        # Writable, since NFS grants an exclusive lock only to those who may write.
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return _RealLock(descriptor)


class _RealFile:
    """A file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int) -> bytes:
        return os.read(self._descriptor, size)

    def write(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def fsync(self) -> None:
        os.fsync(self._descriptor)

    def fdatasync(self) -> None:
        # macOS has no fdatasync.
        getattr(os, "fdatasync", os.fsync)(self._descriptor)

    def close(self) -> None:
        try:
            os.close(self._descriptor)
        except OSError:
            # A late write error of a network file system. A caller who needs the bytes has
            # synced them before, so nothing that was promised is lost.
            pass


class _RealLock:
    """A descriptor with a flock."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        # The file stays: removing it would let two processes lock two files of one name.
        os.close(self._descriptor)


REAL_DISK = RealDisk()


def flock_nowait(descriptor: int, path: Path, kind: int) -> None:
    """Take the flock of an open lock file, `LOCK_EX` or `LOCK_SH`.

    Raises:
        BlockingIOError: another process has it; the error's `strerror` is what it wrote into the file.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        lock_owner = os.pread(descriptor, 256, 0).decode(errors="replace").strip()
        raise BlockingIOError(errno.EAGAIN, lock_owner, str(path)) from None


def write_all(file: DiskFile, data: bytes) -> None:
    """Write all of `data`, continuing after short writes; raises what the first failing write does."""
    done = file.write(data)
    while done < len(data):
        written = file.write(data[done:])
        if written == 0:
            raise OSError(errno.EIO, "the file system writes no more bytes and gives no error")
        done += written


def read_all(disk: Disk, path: Path) -> bytes:
    """Read a whole file."""
    file = disk.open(path, "read")
    try:
        chunks: list[bytes] = []
        while chunk := file.read(1 << 20):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        file.close()


def make_directories(disk: Disk, path: Path) -> None:
    """Make a directory and its missing parents, durably.

    Existing parents are synced too: a run that was killed may have made them just now.
    """
    for directory in reversed([path, *path.parents[:-1]]):
        there = disk.is_directory(directory)
        if not there:
            disk.mkdir(directory)
        try:
            disk.fsync_dir(directory.parent)
        except PermissionError:
            # We did not make a directory that we may pass through but not open.
            if not there:
                raise
