"""Ask a running daemon over HTTP for its audit: one connection, bounded waits, plain errors."""

import http.client
import time
from collections.abc import Callable
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

import msgspec

from distconvd.errors import ConfigError

TIMEOUT_S = 30.0
BODY_BYTES_MAX = 1 << 30
EXIT_NOT_AUDITED = 2
PATIENCE_S = 2.0
TRIES = 10
_NOT_NOW = frozenset({http.client.TOO_MANY_REQUESTS, http.client.SERVICE_UNAVAILABLE})


class _Problem(msgspec.Struct):
    detail: str = ""


class RemoteDaemon:
    """A daemon at a URL; raises `ConfigError` if it cannot be reached or does not answer properly.

    Args:
        url: its base URL; a path prefix is kept.
        key: sent as `X-API-Key`, if there is one.
        sleep: waits for the given seconds.
    """

    def __init__(
        self, url: str, key: str | None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._url = url.rstrip("/")
        self._parts = _checked(self._url)
        self._headers = {} if key is None else {"X-API-Key": key}
        self._connection: http.client.HTTPConnection | None = None
        self._sleep = sleep

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, path: str, tries_left: int = TRIES) -> tuple[bytes, str | None]:
        """Return a reply's body and its `X-Next-Cursor`; raises `LookupError` for a 404.

        If the daemon answers "not now" (429, 503), the request is repeated after a pause, `tries_left`
        times.
        """
        is_reused = self._connection is not None
        try:
            status, body, cursor = self._exchange(path)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not is_reused:
                self._cannot(_describe(error))
            # The daemon may have closed a kept connection; a new one shows whether it answers.
            return self.get(path, tries_left)
        if status in _NOT_NOW and tries_left:
            self._sleep(PATIENCE_S)
            return self.get(path, tries_left - 1)
        if status == http.client.NOT_FOUND:
            raise LookupError(path)
        if status != http.client.OK:
            self._cannot(f"the answer to {path} was {status} {_detail(body)}".rstrip())
        return body, cursor

    def _exchange(self, path: str) -> tuple[int, bytes, str | None]:
        if self._connection is None:
            kind = (
                http.client.HTTPSConnection
                if self._parts.scheme == "https"
                else http.client.HTTPConnection
            )
            host = self._parts.hostname or ""
            self._connection = kind(host, self._parts.port, timeout=TIMEOUT_S)
        self._connection.request("GET", self._parts.path + path, headers=self._headers)
        reply = self._connection.getresponse()
        body = reply.read(BODY_BYTES_MAX)
        return reply.status, body, reply.headers.get("X-Next-Cursor")

    def _cannot(self, reason: str) -> NoReturn:
        raise ConfigError(
            f"the daemon at {self._url} cannot be audited: {reason}; is it running, and does the "
            "key (--api-key, DISTCONV_API_KEY) have the role read?",
            exit_code=EXIT_NOT_AUDITED,
        )


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise ConfigError(
            f"--url is {url!r}; expected a URL such as http://dispatch:8080", exit_code=2
        )
    return urlsplit(url)


def _describe(error: OSError | http.client.HTTPException) -> str:
    words = error.strerror if isinstance(error, OSError) else None
    return words or str(error) or type(error).__name__


def _detail(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Problem).detail
    except msgspec.DecodeError:
        return ""
