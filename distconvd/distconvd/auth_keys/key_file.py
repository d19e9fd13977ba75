"""The key file: many keys, hashed, each with a name, roles, and perhaps an engine and an end.

    {"version": 1, "keys": [{"name": "anna", "sha256": "9f86…", "roles": ["submit", "read"], …}]}

Keys are made here and never chosen by people: 32 random bytes. So a plain SHA-256 keeps them as well as
a slow, salted hash would keep a password: there is no dictionary to try, two keys are never equal,
and 2^256 guesses are no faster for being cheap. A slow hash would cost the daemon's one thread tens
of milliseconds a request, and make every wrong key an attack.

The file is replaced whole (temporary file, fsync, rename), under a lock, so that two commands lose
nothing of each other's and the daemon never reads half of it.
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
"""So that a leaked key is found by those who look for such."""
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
    """It is wrong from then on (ms since the epoch)."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    keys: list[KeyRecord]


def read_keys(path: Path) -> list[KeyRecord]:
    """Return the keys of a file.

    Raises `ConfigError` that says what to do: it is missing, damaged, or others may read or change
    it.
    """
    try:
        with path.open("rb") as file:
            _check_safe(path, os.fstat(file.fileno()))
            raw = file.read()
    except OSError as error:
        raise ConfigError(
            f"the key file {path} cannot be read: {error.strerror}; make one with"
            f" `distconvd keys add --key-file {path} --name NAME --role admin`"
        ) from error
    return _parse(path, raw)


def digest_of(key: str) -> str:
    """Return what the file holds of a key, given as a header's value (latin-1)."""
    return hashlib.sha256(key.encode("latin-1", "replace")).hexdigest()


def add_key(
    path: Path, name: str, roles: list[KeyRole], now_ms: int, *,
    engine: str | None = None, expires_at: int | None = None,
) -> str:  # fmt: skip
    """Add a key, making the file if need be, and return it: this is the only time that it is seen.

    Raises `ConfigError` for a name that is taken, and as `read_keys`.
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
            raise ConfigError(f"there is a key {name!r} already; revoke it first", exit_code=2)
        _write(path, [*keys, record])
    return key


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of the file; raises `ConfigError` where there is none, and as `read_keys`."""
    with _locked(path):
        keys = read_keys(path)
        left = [known for known in keys if known.name != name]
        if len(left) == len(keys):
            raise ConfigError(f"there is no key {name!r} in {path}", exit_code=2)
        _write(path, left)


def _check_safe(path: Path, status: os.stat_result) -> None:
    """Refuse a file that others could read, or make keys in."""
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"the key file {path} is no plain file")
    if status.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(
            f"the key file {path} has mode {mode:04o}: others than its owner may read or change it;"
            f" chmod 600 {path} (or 640, for a group that may read)"
        )
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"the key file {path} belongs to user {status.st_uid}, who could make keys in it;"
            f" chown it to root or to the daemon's user"
        )


def _parse(path: Path, raw: bytes) -> list[KeyRecord]:
    try:
        file = msgspec.json.decode(raw, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the key file {path} is damaged: {error}") from error
    if file.version != 1:
        raise ConfigError(f"the key file {path} is of version {file.version}; this is for 1")
    names = [known.name for known in file.keys]
    for known in file.keys:
        if not _SHA256.fullmatch(known.sha256):
            raise ConfigError(f"the key file {path}: the hash of key {known.name!r} is none")
        if names.count(known.name) > 1:
            raise ConfigError(f"the key file {path}: two keys are called {known.name!r}")
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
    """Let root change a file that belongs to the daemon's user without taking it away."""
    status = path.stat()
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(handle, status.st_uid, status.st_gid)


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold the lock beside the file: the file itself is replaced."""
    try:
        handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"the folder of {path} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    except OSError as error:
        raise ConfigError(f"the key file {path} cannot be changed: {error.strerror}") from error
    finally:
        os.close(handle)
