"""Write files that survive a power cut: temporary name, fsync, rename, fsync again."""

import errno
import hashlib
import os
import re
from pathlib import Path
from urllib.parse import quote

_HASH_CHUNK_BYTES = 1 << 20
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_NUMBER = re.compile(r"\[Errno -?\d+\] ")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_full(error: OSError) -> bool:
    """Whether an error means a full disk or a used-up quota."""
    return error.errno in _FULL


def describe_fault(fault: Exception) -> str:
    """Return an error's words, without the number (`[Errno 2]`) that only programs need."""
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror if fault.filename is None else f"{fault.strerror}: {fault.filename}"
    return _NUMBER.sub("", str(fault)) or type(fault).__name__


def write_durably(path: Path, content: bytes) -> None:
    """Write `content` to `path`, completely or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # a partial file would keep a full disk full
        raise
    fsync_directory(path.parent)


def fsync_file(path: Path) -> None:
    """Make the content of `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_directory(path: Path) -> None:
    """Make the names in the directory `path` durable."""
    fsync_file(path)


def safe_name(text: str) -> str:
    """Return a file name for an id that another program chose; different ids stay different."""
    if not _UNSAFE.search(text) and not text.startswith(".") and 0 < len(text) <= 100:
        return text
    return "x" + quote(text, safe="").replace(".", "%2E")[:180]


def hash_file(path: Path) -> tuple[str, int]:
    """Return the SHA-256 in hex and the size of a file; call it in a thread."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size
