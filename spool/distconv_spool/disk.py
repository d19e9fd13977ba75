"""Define the few file operations that a spool needs, so that tests can inject faults.

Each operation of `Disk` is one step that can fail or be the last one before a power cut. Rules: no
operation follows a symbolic link in the last part of a path; a file's content is durable when
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
"""The group may read; the modes of the folders decide whether it can reach the file."""

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Disk(Protocol):
    """File operations; each raises `OSError` as the system call would."""

    def scan(self, folder: Path) -> Iterator[str]:
        """Yield the names in a folder as the system returns them, without a list of all."""
        ...

    def lstat(self, path: Path) -> os.stat_result:
        """Return the status of the path itself, not of what it may point to."""
        ...

    def read(self, path: Path, limit_bytes: int) -> tuple[bytes, os.stat_result]:
        """Return a plain file's content and its status after reading.

        Raises:
            BadDrop: it is not a plain file, or is larger than the limit.
        """
        ...

    def write_new(self, path: Path, data: bytes) -> None:
        """Create a file, complete and fsynced; raises `FileExistsError` if it exists."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Move within the file system, replacing the target."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        ...

    def touch(self, path: Path) -> int:
        """Set a file's time to the present and return it, in ns.

        The clock is that which stamps files there (on NFS the server's). Works on a full disk.
        """
        ...

    def sync_dir(self, folder: Path) -> None:
        """Make the folder's entries durable."""
        ...


class OsDisk:
    """The real file system."""

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
        # lstat first: opening a device can have effects (rewind a tape).
        _require_plain(os.lstat(path))
        descriptor = os.open(path, _READ_FLAGS)
        try:
            _require_plain(os.fstat(descriptor))
            data = _read_up_to(descriptor, limit_bytes + 1)
            if len(data) > limit_bytes:
                raise BadDrop(f"The file is larger than {limit_bytes} bytes.")
            return data, os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def write_new(self, path: Path, data: bytes) -> None:
        """See `Disk`."""
        descriptor = os.open(path, _WRITE_FLAGS, FILE_MODE)
        try:
            # Override the umask: who may read the folder must be able to read its files.
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
            # SMB and some FUSE file systems cannot fsync a folder: trust their server.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)


def _require_plain(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadDrop(f"Expected a plain file; this is {kind_of(status.st_mode)}.")


def kind_of(mode: int) -> str:
    """Return the kind of file of a mode, in words."""
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
