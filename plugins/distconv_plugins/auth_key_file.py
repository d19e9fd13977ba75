"""Authenticate by a file of named keys with roles: `--key-file FILE`.

A key may also be bound to one engine, and may expire. The file contains hashes (see
`distconvd.auth_keys.key_file` for why SHA-256 is enough) and is made by `distconvd keys`. It is
read again on SIGHUP and when it has changed, which a thread checks once a second. If the changed
file cannot be read, the previous keys stay valid and an error is logged: an editor's half-written
file must not lock a farm out.
"""

import hmac
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import trio

from distconvd import hookimpl
from distconvd.auth import missing_key, wrong_key
from distconvd.errors import ConfigError
from distconvd.hookspecs import (
    AuthenticatorFactory,
    PluginContext,
    Registrar,
    SettingsRegistrar,
)
from distconvd.plugin_api import KeyRecord, Principal, digest_of, read_keys

NAME = "key-file"

log = logging.getLogger("distconvd.auth")


class KeyFileSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Table `[plugin.key-file]`; the file itself is named by `--key-file`."""

    poll_s: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """Time between two checks for a change of the file."""


class KeyFile:
    """See the module.

    Args:
        path: the file.
        poll_s: time between two checks for a change.
        now_s: the wall clock, for keys that expire.

    Raises `ConfigError` for a file that is missing, damaged, or readable by others.
    """

    def __init__(
        self, path: Path, poll_s: float = 1.0, now_s: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._poll_s = poll_s
        self._now_s = now_s
        self._version = self._file_version()
        self._by_digest: dict[str, tuple[KeyRecord, Principal]] = {}
        self.reload()

    def authenticate(self, key: str | None, peer: str) -> Principal:
        if key is None:
            raise missing_key()
        digest = digest_of(key)
        # The time of this lookup reveals nothing of a key: nobody can choose how a guess's hash begins.
        record, principal = self._by_digest.get(digest, (None, None))
        if record is None or principal is None or not hmac.compare_digest(digest, record.sha256):
            raise wrong_key()
        if record.expires_at is not None and record.expires_at <= self._now_s() * 1000:
            log.warning("key %s has expired", record.name, extra={"peer": peer})
            raise wrong_key()
        return principal

    def reload(self) -> None:
        """Read the file; raises `ConfigError`, and then keeps the previous keys."""
        self._by_digest = {
            record.sha256: (record, Principal(record.name, frozenset(record.roles), record.engine))
            for record in read_keys(self._path)
        }

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Reload the file when it changes, until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(self._poll_s)
            await trio.to_thread.run_sync(self._reload_if_changed)

    def _reload_if_changed(self) -> None:
        version = self._file_version()
        if version == self._version:
            return
        self._version = version
        try:
            self.reload()
        except ConfigError as error:
            log.error("the changed key file is not used, the previous keys stay valid: %s", error)
        else:
            count = len(self._by_digest)
            log.info("the key file has changed: %d %s", count, "key" if count == 1 else "keys")

    def _file_version(self) -> tuple[int, ...] | None:
        """Return what distinguishes one version of the file from another; None without a file."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode, status.st_uid


@hookimpl
def distconvd_register_authenticators(registrar: Registrar[AuthenticatorFactory]) -> None:
    """Register the authenticator."""
    registrar.add(NAME, _make)


@hookimpl
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare `[plugin.key-file]`."""
    registrar.add(NAME, KeyFileSettings)


def _make(context: PluginContext) -> KeyFile:
    if context.key_file is None:
        raise ConfigError("authenticator key-file needs a file: --key-file FILE")
    if context.api_key is not None:
        log.warning(
            "api_key is set but not accepted, because only the keys in %s are;"
            " set auth to api-key to use that one key alone",
            context.key_file,
        )
    return KeyFile(context.key_file, context.settings(NAME, KeyFileSettings).poll_s)
