"""The few things that a spool asks of a file system, as a seam that tests can break.

Each operation of `Disk` is one step that can fail or be the last one before a power cut. Rules:
no operation follows a symbolic link in the last part of a path; a file's content is durable when
`write_new` returns, a folder's entries only after `sync_dir`.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from distconv_spool.errors import BadDrop

FILE_MODE = 0o640
"""The group reads; whether there is a group is decided by the folders."""

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Disk(Protocol):
    """File operations; each raises `OSError` as the system call would."""

    def scan(self, folder: Path) -> Iterator[str]:
        """Yield the names in a folder as the system hands them out, never all at once."""
        ...

    def lstat(self, path: Path) -> os.stat_result:
        """Return what the path is itself, not what it may point to."""
        ...

    def read(self, path: Path, limit_bytes: int) -> tuple[bytes, os.stat_result]:
        """Return a plain file's content and its status after reading.

        Raises:
            BadDrop: it is no plain file, or longer than the limit.
        """
        ...

    def write_new(self, path: Path, data: bytes) -> None:
        """Make a file that did not exist, whole and fsynced."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Move within the file system, over what is there."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        ...

    def touch(self, path: Path) -> int:
        """Set a file's time to the present of whoever stamps files there (NFS: the server), and
        return it, in ns. Needs no room on the disk."""
        ...

    def sync_dir(self, folder: Path) -> None:
        """Make the folder's entries durable."""
        ...


class OsDisk:
    """The real one."""

    def scan(self, folder: Path) -> Iterator[str]:
        """See `Disk`."""
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry.name

    def lstat(self, path: Path) -> os.stat_result:
        """See `Disk`."""
        return os.lstat(path)

    def read(self, path: Path, limit_bytes: int) -> tuple[bytes, os.stat_result]:
        """See `Disk`."""
        # lstat first: to open a device can already do something (rewind a tape).
        _require_plain(os.lstat(path))
        descriptor = os.open(path, _READ_FLAGS)
        try:
            _require_plain(os.fstat(descriptor))
            data = _read_up_to(descriptor, limit_bytes + 1)
            if len(data) > limit_bytes:
                raise BadDrop(f"The file is longer than {limit_bytes} bytes.")
            return data, os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def write_new(self, path: Path, data: bytes) -> None:
        """See `Disk`."""
        descriptor = os.open(path, _WRITE_FLAGS, FILE_MODE)
        try:
            # Against the umask: whoever may read the folder is to read its files.
            os.fchmod(descriptor, FILE_MODE)
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """See `Disk`."""
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        """See `Disk`."""
        os.unlink(path)

    def touch(self, path: Path) -> int:
        """See `Disk`."""
        os.utime(path, follow_symlinks=False)
        return os.lstat(path).st_mtime_ns

    def sync_dir(self, folder: Path) -> None:
        """See `Disk`."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # SMB and some FUSE file systems have no fsync of a folder: their server is trusted.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)


def _require_plain(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadDrop(f"Only a plain file can be a job; this is {kind_of(status.st_mode)}.")


def kind_of(mode: int) -> str:
    """Return in words what sort of file a mode tells of."""
    names = (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for test, name in names if test(mode)), "a plain file")


def _read_up_to(descriptor: int, limit_bytes: int) -> bytes:
    pieces: list[bytes] = []
    while limit_bytes > 0 and (piece := os.read(descriptor, min(limit_bytes, 65_536))):
        pieces.append(piece)
        limit_bytes -= len(piece)
    return b"".join(pieces)
