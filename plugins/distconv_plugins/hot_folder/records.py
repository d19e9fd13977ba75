"""Keep on disk what has been ordered for each video.

A record is one video, identified by its size, its time, and its first and last bytes. Not by
device and inode, which a remount changes: all videos would be done again then. A record contains
the orders for that video, usually one. Before an order is submitted it is durable, with its key
and the exact fields of the submission; so after a crash the same submission is simply sent again.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from distconv_spool import BadDrop, Disk, Observed
from distconv_spool.lock import take_lock
from distconvd.errors import ConfigError

_SAMPLE_BYTES = 65_536
_RECORD_BYTES_MAX = 16_777_216
_OUTPUTS = "outputs"
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """One job for one video. Paths are percent-encoded, because a name may be any bytes."""

    path: str
    """The video, relative to the watched folder."""
    output_rule: str = msgspec.field(name="room")
    """The folder whose settings applied, relative to the watched folder."""
    codec: str
    key: str
    """The idempotency key."""
    fields: dict[str, Any]
    """The submission."""
    report_folder: str
    """Where the report goes."""
    job_id: str | None = None
    outcome: str | None = None
    """The job's last status, or `rejected`, once its report is written."""
    was_source_gone: bool = False
    """Whether the video was no longer at its path when the job ended."""


class Record(msgspec.Struct, frozen=True):
    """One video and its orders, the oldest first."""

    size_bytes: int
    mtime_ns: int
    orders: list[Order] = []

    def with_order(self, at: int, order: Order) -> "Record":
        """Return this record with one order replaced, or added at its end."""
        orders = [*self.orders]
        orders[at : at + 1] = [order]
        return msgspec.structs.replace(self, orders=orders)


class Records:
    """The records of one daemon.

    Args:
        folder: where they are; it is created.
        watch: the watched folder.
        disk: the file system.

    Resource handling: keeps two locks until `close`, so that no other process uses these records
    or serves this watched folder.
    """

    def __init__(self, folder: Path, watch: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._locks = [_lock(folder / ".lock")]
        try:
            self._locks.append(_lock(watch / ".distconv-hot-folder.lock"))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the locks, so that another process can use the records."""
        for lock in self._locks:
            os.close(lock)
        self._locks = []

    def maybe_read(self, name: str) -> Record | None:
        """Return the record of a video; None if it has none.

        Raises `OSError` for one that cannot be read or is damaged: a person must deal with it.
        """
        try:
            data, _ = self._disk.read(self._path(name), _RECORD_BYTES_MAX)
            return msgspec.json.decode(data, type=Record)
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError, BadDrop) as error:
            raise _damaged(self._path(name), error) from error

    def write(self, name: str, record: Record) -> None:
        """Replace a record in one step; durable after `sync`."""
        self._put(name, msgspec.json.encode(record))

    def sync(self) -> None:
        """Make all written records durable."""
        self._disk.sync_dir(self._folder)

    def names(self) -> Iterator[str]:
        """Yield the names of all records."""
        for file in self._disk.scan(self._folder):
            stem, dot, suffix = file.rpartition(".")
            if dot and suffix == "json" and len(stem) == 32:
                yield stem

    def outputs(self) -> set[str]:
        """Return the folders that results have been written to."""
        path = self._path(_OUTPUTS)
        try:
            data, _ = self._disk.read(path, _RECORD_BYTES_MAX)
            names = msgspec.json.decode(data, type=list[str])
            return {os.fsdecode(bytes.fromhex(name)) for name in names}
        except FileNotFoundError:
            return set()
        except (ValueError, RecursionError, BadDrop) as error:
            raise _damaged(path, error) from error

    def write_outputs(self, outputs: set[str]) -> None:
        """Record the folders that results go to; durable on return."""
        self._put(_OUTPUTS, msgspec.json.encode(sorted(os.fsencode(o).hex() for o in outputs)))
        self.sync()

    def _put(self, name: str, data: bytes) -> None:
        replace_file(self._disk, self._path(name), self._folder / f".{name}.part", data)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def replace_file(disk: Disk, target: Path, part: Path, data: bytes) -> None:
    """Replace a file in one step. Only for files that nobody else writes.

    The part's name is always the same, so a crash leaves at most one, which the next try removes.
    """
    try:
        disk.write_new(part, data)
    except FileExistsError:
        disk.unlink(part)
        disk.write_new(part, data)
    disk.rename(part, target)


def maybe_fingerprint(watch: Path, observed: Observed) -> str | None:
    """Return the name of a video's record; None if the file is no longer the one that was observed.

    Links are not followed, anywhere in the path, and only a plain file is read.

    Raises `OSError` if it cannot be read.
    """
    try:
        descriptor = _open_beneath(watch, observed.name)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        status = os.fstat(descriptor)
        same = (status.st_size, status.st_mtime_ns) == (observed.size_bytes, observed.mtime_ns)
        if not same or not stat.S_ISREG(status.st_mode):
            return None
        digest = hashlib.sha256(f"{observed.size_bytes} {observed.mtime_ns}\n".encode())
        digest.update(os.pread(descriptor, _SAMPLE_BYTES, 0))
        digest.update(
            os.pread(descriptor, _SAMPLE_BYTES, max(0, observed.size_bytes - _SAMPLE_BYTES))
        )
        return digest.hexdigest()[:32]
    finally:
        os.close(descriptor)


def _damaged(path: Path, error: Exception) -> OSError:
    return OSError(
        errno.EIO, f"is damaged ({error}); move it away to have its video submitted again", path
    )


def _open_beneath(watch: Path, path: str) -> int:
    folder = os.open(watch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        *parents, name = path.split("/")
        for parent in parents:
            inner = os.open(parent, _FOLDER_FLAGS, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(name, _FILE_FLAGS, dir_fd=folder)
    finally:
        os.close(folder)


def _lock(path: Path) -> int:
    try:
        return take_lock(path)
    except BlockingIOError:
        raise ConfigError(
            f"Another daemon serves this hot folder (it has locked {path}). Stop one of them."
        ) from None
