"""Work in a folder below a root without following a link on the way.

A path is checked once, but may be another one later: whoever may write in a shared folder can replace
a folder by a link while a job runs. So each folder is opened from its root downwards by descriptor,
and no link is followed (`O_NOFOLLOW`); names are then used relative to that descriptor. The root
itself is the operator's choice and may be a link.

A published file carries the name of its job (`user.distconv.job`, an extended attribute, with the
file's size and time, so that it counts no more once somebody has edited the file). A disk without
such attributes only loses the right to replace a job's own earlier result.
"""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

OWNER = "user.distconv.job"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_ATTRIBUTES = frozenset({errno.ENOTSUP, errno.EPERM, errno.ENOSYS, errno.EINVAL})
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS})


class LinkOnTheWay(OSError):
    """A part of the path is a link, or no folder, where a folder was."""


class Folder:
    """An open folder. Its calls block."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> "Folder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._descriptor)

    def create(self, name: str) -> int:
        """Create a file, in place of what has this name, and return its descriptor."""
        self.remove(name)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o666, dir_fd=self._descriptor)

    def status(self, name: str) -> os.stat_result | None:
        """Return the status of a file, of the link if it is one; None if there is none."""
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def is_same_file(self, name: str, other: Path) -> bool:
        """Whether a name, links followed, is the file `other`."""
        try:
            here = os.stat(name, dir_fd=self._descriptor)
        except OSError:
            return False
        return os.path.samestat(here, other.stat())

    def move_in(self, path: Path, name: str, sha256: str) -> None:
        """Move a file here: by rename on the same disk, else by copy, which is compared."""
        try:
            os.rename(path, name, dst_dir_fd=self._descriptor)  # nothing, if it is here already
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy_in(path, name, sha256)

    def make_durable(self, name: str, job_id: str) -> None:
        """Mark a file as a result of the job, and sync it."""
        descriptor = os.open(name, _READ, dir_fd=self._descriptor)
        try:
            try:
                os.setxattr(descriptor, OWNER, _mark_of(descriptor, job_id))
            except OSError as error:
                if error.errno not in _NO_ATTRIBUTES:
                    raise
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def is_result_of(self, name: str, job_id: str) -> bool:
        """Whether a file is a result of this job that nobody has changed since."""
        try:
            descriptor = os.open(name, _READ, dir_fd=self._descriptor)
        except OSError:
            return False
        try:
            return os.getxattr(descriptor, OWNER) == _mark_of(descriptor, job_id)
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def give_new_name(self, old: str, new: str) -> bool:
        """Rename a file unless the new name exists; returns whether it did."""
        here = self._descriptor
        try:
            os.link(old, new, src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if self.status(new) is not None:  # no hard links here: a race is possible, there only
                return False
            self.replace(old, new)
            return True
        os.unlink(old, dir_fd=here)
        return True

    def replace(self, old: str, new: str) -> None:
        """Rename a file; one of the new name is replaced, and a link itself, not what it names."""
        os.rename(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def sync(self) -> None:
        """Make the names in this folder durable."""
        os.fsync(self._descriptor)

    def _copy_in(self, path: Path, name: str, sha256: str) -> None:
        with open(self.create(name), "w+b") as copy, path.open("rb") as original:
            shutil.copyfileobj(original, copy, 1 << 20)
            copy.flush()
            copy.seek(0)
            if hashlib.file_digest(copy, "sha256").hexdigest() != sha256:
                raise OSError(errno.EIO, "the copy differs from the original")


def path_of(descriptor: int) -> Path | None:
    """Return a path by which a child process opens this very file; None where there is no /proc."""
    path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    return path if path.exists() else None


def open_folder(root: Path, parts: Sequence[str], *, create: bool) -> Folder:
    """Open the folder `parts` below `root`.

    Raises:
        LinkOnTheWay: one of the parts is a link or a file.
        OSError: as `open` and `mkdir`.
    """
    if create:
        root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root, _FOLDER)
    try:
        for part in parts:
            below = _open_part(descriptor, part, create=create)
            os.close(descriptor)
            descriptor = below
    except BaseException:
        os.close(descriptor)
        raise
    return Folder(descriptor)


def _open_part(above: int, part: str, *, create: bool) -> int:
    try:
        return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
    except FileNotFoundError:
        if not create:
            raise
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise LinkOnTheWay(error.errno, f"{part!r} on its path is a link or a file") from error
        raise
    with suppress(FileExistsError):  # another job has just made it
        os.mkdir(part, dir_fd=above)
    return _open_part(above, part, create=False)


def _mark_of(descriptor: int, job_id: str) -> bytes:
    """Return what marks an open file as the job's; raises `OSError` if it is not a regular one."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return f"{job_id} {status.st_size} {int(status.st_mtime)}".encode()
