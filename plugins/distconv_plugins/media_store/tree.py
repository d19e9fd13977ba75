"""Read and write the media store's files without following links.

Every name is relative to the descriptor of a folder that was opened with `O_NOFOLLOW`, segment by
segment from the root: whatever somebody puts into the tree, nothing outside of it is read or
written. A file appears complete and durable, by rename from `.uploads/`, or not at all. All calls
block; they are made in threads.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from distconv_plugins.media_store.names import UPLOADS

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PART = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIGEST = "user.distconv.sha256"
_CHUNK_BYTES = 1_048_576
_REREAD_BYTES = 64 * _CHUNK_BYTES


class Stored(NamedTuple):
    """An open file; the caller closes it."""

    descriptor: int
    size_bytes: int
    mtime_ns: int
    sha256: str | None
    """Of its content, if the file system could store it and nobody changed the file since."""


class Part:
    """The file of an unfinished upload. One user at a time."""

    def __init__(self, folder: int, name: str) -> None:
        self._folder = folder
        self._name = name
        try:
            self._descriptor = os.open(name, _PART, 0o644, dir_fd=folder)
        except BaseException:
            os.close(folder)
            raise
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def cut(self, offset: int) -> int:
        """Keep only the first `offset` bytes, and return how many there were before."""
        size = os.fstat(self._descriptor).st_size
        if size > offset:
            os.ftruncate(self._descriptor, offset)
        return size

    def reread(self, up_to: int) -> bool:
        """Hash another portion of the kept bytes; return True once `up_to` bytes are hashed."""
        end = min(up_to, self.size_bytes + _REREAD_BYTES)
        while self.size_bytes < end:
            data = os.pread(
                self._descriptor, min(_CHUNK_BYTES, end - self.size_bytes), self.size_bytes
            )
            if not data:
                raise OSError(errno.EIO, "another process has truncated a part of an upload")
            self._note(data)
        return self.size_bytes >= up_to

    def write(self, data: bytes) -> None:
        """Append to the part."""
        left = memoryview(data)
        while left:
            written = os.pwrite(self._descriptor, left, self.size_bytes)
            self._note(left[:written])
            left = left[written:]

    @property
    def sha256(self) -> str:
        """The digest of its content, in hex."""
        return self._hash.hexdigest()

    def keep(self) -> None:
        """Close the part and leave it for a later upload to resume."""
        os.close(self._descriptor)
        os.close(self._folder)

    def discard(self) -> None:
        """Close and remove the part."""
        try:
            os.unlink(self._name, dir_fd=self._folder)
        finally:
            self.keep()

    def publish(self, tree: "MediaTree", segments: Sequence[str]) -> None:
        """Make the part the file of that name, durably, replacing an earlier one.

        It stays open: `keep` closes it; call `discard` if this has raised.
        """
        os.fsync(self._descriptor)
        self._note_digest()
        with tree.folder_of(segments, make=True) as target:
            os.rename(self._name, segments[-1], src_dir_fd=self._folder, dst_dir_fd=target)
            os.fsync(target)

    def _note(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.size_bytes += len(data)

    def _note_digest(self) -> None:
        status = os.fstat(self._descriptor)
        note = f"{self.sha256} {status.st_size} {status.st_mtime_ns}"
        try:
            os.setxattr(self._descriptor, _DIGEST, note.encode())
        except OSError:
            pass  # a file system without attributes: size and time serve as the ETag instead


class MediaTree:
    """The store's directory.

    Args:
        root: created if it is missing (its parent must exist).
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def part(self, name: str) -> Part:
        """Open a part, new or kept; call `cut` and `reread` before writing to it."""
        return Part(self._uploads(), name)

    def part_size(self, name: str) -> int:
        """Return how many bytes of an upload are there."""
        folder = self._uploads()
        try:
            return os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0
        finally:
            os.close(folder)

    def open(self, segments: Sequence[str]) -> Stored:
        """Open a stored file; raises `OSError` (`FileNotFoundError` if it is not a plain file)."""
        with self.folder_of(segments, make=False) as folder:
            descriptor = os.open(segments[-1], _FILE, dir_fd=folder)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(segments[-1])
            noted = _noted_digest(descriptor, status)
            return Stored(descriptor, status.st_size, status.st_mtime_ns, noted)
        except BaseException:
            os.close(descriptor)
            raise

    def free_bytes(self) -> int:
        """Return how many bytes an ordinary user may still write."""
        self.root.mkdir(exist_ok=True)
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    def expire_parts(self, keep_s: float) -> None:
        """Remove the parts that nobody has written to for `keep_s`."""
        folder = self._uploads()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > keep_s:
                        os.unlink(entry.name, dir_fd=folder)
        except FileNotFoundError:
            pass  # published or discarded meanwhile; the next sweep removes the rest
        finally:
            os.close(folder)

    @contextmanager
    def folder_of(self, segments: Sequence[str], *, make: bool) -> Generator[int]:
        """Yield the descriptor of the folder that contains the last segment."""
        self.root.mkdir(exist_ok=True)
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for segment in segments[:-1]:
                inner = _enter(folder, segment, 0o755, make=make)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    def _uploads(self) -> int:
        with self.folder_of(("",), make=True) as root:
            return _enter(root, UPLOADS, 0o700, make=True)


def _enter(folder: int, segment: str, mode: int, *, make: bool) -> int:
    try:
        return os.open(segment, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    try:
        os.mkdir(segment, mode, dir_fd=folder)
        os.fsync(folder)
    except FileExistsError:
        pass  # another upload has just made it
    return os.open(segment, _FOLDER, dir_fd=folder)


def _noted_digest(descriptor: int, status: os.stat_result) -> str | None:
    try:
        digest, size, mtime_ns = os.getxattr(descriptor, _DIGEST).decode().split(" ")
    except (OSError, ValueError):
        return None  # never stored, or not by us
    unchanged = (size, mtime_ns) == (str(status.st_size), str(status.st_mtime_ns))
    return digest if unchanged and len(digest) == 64 and digest.isalnum() else None
