"""Writing files so that they survive a power cut: temporary name, fsync, rename, fsync again."""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import quote

_HASH_CHUNK_BYTES = 1 << 20
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


def write_durably(path: Path, content: bytes) -> None:
    """Put `content` at `path`, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
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
