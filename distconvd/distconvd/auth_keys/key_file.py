"""Read and change the key file: hashed keys with name, roles, optional engine and expiry.

    {"version": 1, "keys": [{"name": "anna", "sha256": "9f86…", "roles": ["submit", "read"], …}]}

Keys are generated here and never chosen by people: 32 random bytes. So a plain SHA-256 protects them
as well as a slow, salted hash protects a password: there is no dictionary to try, two keys are never
equal, and 2^256 guesses are hopeless however cheap each one is. A slow hash would cost the daemon's
only thread tens of milliseconds per request, and make every wrong key an attack.

The file is replaced as a whole (temporary file, fsync, rename), under a lock, so that concurrent
commands do not lose each other's changes and the daemon never reads a half-written file.
"""

import fcntl
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from distconvd.errors import ConfigError
from distconvd.model import Limits

KeyRole = Literal["read", "submit", "engine", "admin"]

KEY_PREFIX = "dck_"
"""So that secret scanners can find a leaked key."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key."""

    name: str
    """Unique; what logs call the key."""
    sha256: str
    roles: list[KeyRole]
    engine: str | None = None
    """The one engine that the key may speak for."""
    created_at: int
    """ms since the epoch."""
    expires_at: int | None = None
    """The key is rejected from then on (ms since the epoch)."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    keys: list[KeyRecord]


def read_keys(path: Path) -> list[KeyRecord]:
    """Return the keys of a file.

    Raises `ConfigError` that says what to do if the file is missing or damaged, or if others may
    read or change it.
    """
    try:
        with path.open("rb") as file:
            _check_safe(path, os.fstat(file.fileno()))
            raw = file.read()
    except OSError as error:
        raise ConfigError(
            f"the key file {path} cannot be read: {error.strerror}; create one with"
            f" `distconvd keys add --key-file {path} --name NAME --role admin`"
        ) from error
    return _parse(path, raw)


def digest_of(key: str) -> str:
    """Return the hash under which the file has a key, given as a header's value (latin-1)."""
    return hashlib.sha256(key.encode("latin-1", "replace")).hexdigest()


def add_key(
    path: Path, name: str, roles: list[KeyRole], now_ms: int, *,
    engine: str | None = None, expires_at: int | None = None,
) -> str:  # fmt: skip
    """Add a key, creating the file if needed, and return it: only its hash is stored.

    Raises `ConfigError` for an invalid or duplicate name, and as `read_keys` does.
    """
    if not (0 < len(name) <= Limits.id_chars and name.isprintable() and name.strip() == name):
        raise ConfigError("a key's name must be printable and not empty", exit_code=2)
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    record = KeyRecord(
        name=name, sha256=digest_of(key), roles=sorted(set(roles)), engine=engine,
        created_at=now_ms, expires_at=expires_at,
    )  # fmt: skip
    with _locked(path):
        keys = read_keys(path) if path.exists() else []
        if any(known.name == name for known in keys):
            raise ConfigError(f"the key {name!r} already exists; revoke it first", exit_code=2)
        _write(path, [*keys, record])
    return key


def revoke_key(path: Path, name: str) -> None:
    """Remove a key from the file; raises `ConfigError` if it is missing, and as `read_keys` does."""
    with _locked(path):
        keys = read_keys(path)
        left = [known for known in keys if known.name != name]
        if len(left) == len(keys):
            raise ConfigError(
                f"{path} has no key {name!r}; `distconvd keys list` shows its keys", exit_code=2
            )
        _write(path, left)


def _check_safe(path: Path, status: os.stat_result) -> None:
    """Raise `ConfigError` for a file that others could read, or add keys to."""
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"the key file {path} is not a regular file")
    if status.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(
            f"the key file {path} has mode {mode:04o}, so users other than its owner may read or"
            f" change it; run `chmod 600 {path}` (or 640, to let its group read it)"
        )
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"the key file {path} belongs to user {status.st_uid}, who could add keys to it;"
            f" chown it to root or to the daemon's user"
        )


def _parse(path: Path, raw: bytes) -> list[KeyRecord]:
    try:
        file = msgspec.json.decode(raw, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the key file {path} is damaged: {error}") from error
    if file.version != 1:
        raise ConfigError(
            f"the key file {path} has version {file.version}; this program reads only version 1"
        )
    names = [known.name for known in file.keys]
    for known in file.keys:
        if not _SHA256.fullmatch(known.sha256):
            raise ConfigError(
                f"the key file {path}: the hash of key {known.name!r} is not a SHA-256 in hexadecimal"
            )
        if names.count(known.name) > 1:
            raise ConfigError(f"the key file {path} has two keys named {known.name!r}")
    return file.keys


def _write(path: Path, keys: list[KeyRecord]) -> None:
    raw = msgspec.json.format(msgspec.json.encode(_File(1, keys)), indent=2) + b"\n"
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            if path.exists():
                _keep_owner(file.fileno(), path)
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _keep_owner(handle: int, path: Path) -> None:
    """Keep the file's owner when root changes a file that belongs to the daemon's user."""
    status = path.stat()
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(handle, status.st_uid, status.st_gid)


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Lock `FILE.lock` next to the file, which itself is replaced and so cannot be the lock."""
    try:
        handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write to the folder of {path}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    except OSError as error:
        raise ConfigError(f"the key file {path} cannot be changed: {error.strerror}") from error
    finally:
        os.close(handle)
