"""Inject faults into a file system, for tests of code that uses a `Disk`.

Every operation is counted. At the chosen one the disk fails, or the machine stops before or after
it; from then on every operation raises `PowerCut`, since a dead process does nothing more. After a
power cut `lose_unsynced` reverts what no fsync made durable, newest first: the harshest outcome
that a file system with atomic renames allows. The mildest is that everything was kept, so a test
tries both.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

from distconv_spool.disk import OsDisk

_T = TypeVar("_T")


class PowerCut(BaseException):
    """The machine has stopped. Not an `Exception`, so that no code handles it."""


class Fault(Enum):
    """What happens at the chosen operation."""

    STOP_BEFORE = "the machine stops before it"
    STOP_TORN = "the machine stops in the middle of a write, else before it"
    STOP_AFTER = "the machine stops after it"
    FAIL = "it does nothing and raises the error"
    LOST_REPLY = "it is done, and raises the error all the same, as over NFS"


@dataclass
class _Pending:
    """A change of a folder that is not durable until the folder is fsynced."""

    folder: Path
    """The folder of the new entry. A rename is one change: it is durable with its target."""
    paths: frozenset[Path]
    undo: Callable[[], None]


class FaultyDisk(OsDisk):
    """The real disk with a fault at one operation.

    Args:
        at: the number of the operation, from 1; 0 for no fault.
        fault: what happens there.
        error_number: the `errno` of `FAIL` and `LOST_REPLY`.
        only: the names of the operations that count; empty for all.
    """

    def __init__(
        self,
        at: int = 0,
        fault: Fault = Fault.STOP_BEFORE,
        error_number: int = 0,
        only: frozenset[str] = frozenset(),
    ) -> None:
        self._at = at
        self._fault = fault
        self._errno = error_number
        self._only = only
        self._pending: list[_Pending] = []
        self.operations = 0
        self.stopped = False

    @property
    def struck(self) -> bool:
        """Whether the fault has happened."""
        return 0 < self._at <= self.operations

    def restarted(self, at: int, fault: Fault, only: frozenset[str] = frozenset()) -> "FaultyDisk":
        """Return the disk of the next process on the same machine, with its own fault.

        Only a process was killed: changes that were not durable are still there, but still not
        durable.
        """
        disk = FaultyDisk(at, fault, only=only)
        disk._pending = self._pending
        return disk

    def lose_unsynced(self) -> None:
        """Revert every change of a folder that was not fsynced, as after a power cut."""
        for pending in reversed(self._pending):
            pending.undo()
        self._pending.clear()

    def scan(self, folder: Path) -> Iterator[str]:
        """See `Disk`."""
        return iter(self._do("scan", lambda: list(super(FaultyDisk, self).scan(folder))))

    def lstat(self, path: Path) -> os.stat_result:
        """See `Disk`."""
        return self._do("lstat", lambda: super(FaultyDisk, self).lstat(path))

    def read(self, path: Path, limit_bytes: int) -> tuple[bytes, os.stat_result]:
        """See `Disk`."""
        return self._do("read", lambda: super(FaultyDisk, self).read(path, limit_bytes))

    def write_new(self, path: Path, data: bytes) -> None:
        """See `Disk`."""

        def write(part: bytes = data) -> None:
            super(FaultyDisk, self).write_new(path, part)
            self._pend(path.parent, {path}, lambda: path.unlink(missing_ok=True))

        self._do("write_new", write, torn=lambda: write(data[: len(data) // 2]))

    def rename(self, source: Path, target: Path) -> None:
        """See `Disk`."""

        def move() -> None:
            replaced = target.read_bytes() if target.is_file() else None
            super(FaultyDisk, self).rename(source, target)

            def undo() -> None:
                if os.path.lexists(target):
                    os.rename(target, source)
                if replaced is not None:
                    target.write_bytes(replaced)

            self._pend(target.parent, {source, target}, undo)

        self._do("rename", move)

    def unlink(self, path: Path) -> None:
        """See `Disk`."""

        def remove() -> None:
            was, status = path.read_bytes(), os.lstat(path)
            super(FaultyDisk, self).unlink(path)

            def undo() -> None:
                path.write_bytes(was)
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

            self._pend(path.parent, {path}, undo)

        self._do("unlink", remove)

    def touch(self, path: Path) -> int:
        """See `Disk`."""
        return self._do("touch", lambda: super(FaultyDisk, self).touch(path))

    def sync_dir(self, folder: Path) -> None:
        """See `Disk`."""

        def sync() -> None:
            super(FaultyDisk, self).sync_dir(folder)
            self._commit(folder)

        self._do("sync_dir", sync)

    def _pend(self, folder: Path, paths: set[Path], undo: Callable[[], None]) -> None:
        self._pending.append(_Pending(folder, frozenset(paths), undo))

    def _commit(self, folder: Path) -> None:
        left: list[_Pending] = []
        durable: set[Path] = set()
        for pending in reversed(self._pending):
            # An earlier change of the same paths, on which a durable one depends, is durable too.
            if pending.folder == folder or pending.paths & durable:
                durable |= pending.paths
            else:
                left.append(pending)
        self._pending = left[::-1]

    def _do(self, name: str, work: Callable[[], _T], torn: Callable[[], _T] | None = None) -> _T:
        if self.stopped:
            raise PowerCut
        if self._only and name not in self._only:
            return work()
        self.operations += 1
        if self.operations != self._at:
            return work()
        if self._fault is Fault.FAIL:
            raise OSError(self._errno, os.strerror(self._errno))
        if self._fault is Fault.LOST_REPLY:
            work()
            raise OSError(self._errno, os.strerror(self._errno))
        self.stopped = True
        if self._fault is Fault.STOP_AFTER:
            work()
        elif self._fault is Fault.STOP_TORN and torn is not None:
            torn()
        raise PowerCut
