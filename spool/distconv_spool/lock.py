"""Lock a file for one process; the lock ends with the process, however that ends."""

import fcntl
import os
from pathlib import Path


def take_lock(path: Path) -> int:
    """Lock a file, which is created if it is missing, without waiting.

    Returns:
        Its descriptor; closing it releases the lock. The file stays: if it were removed, two
        processes could lock two files of the same name.

    Raises:
        BlockingIOError: another process has locked it.
        OSError: as `os.open`; a symbolic link is not followed.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
