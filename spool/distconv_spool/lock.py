"""A lock file: one process at a time, and a process that ends lets go, however it ends."""

import fcntl
import os
from pathlib import Path


def take_lock(path: Path) -> int:
    """Take the lock file, made where there is none, without waiting.

    Returns:
        Its descriptor; whoever closes it lets go. The file stays: removing it would let two processes
        lock two files of one name.

    Raises:
        BlockingIOError: another process holds it.
        OSError: as of `open`; a symbolic link is not followed.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
