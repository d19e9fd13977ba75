"""The daemon's key: what one may look like, and how it goes into a request.

A key beyond ASCII goes as UTF-8, as the daemon compares it. One that no header can carry is refused
before anything is sent, by the name of where it came from: its value is never shown.
"""

import httpx

from distconv_engine.errors import ConfigError


def checked_key(key: str, origin: str) -> str:
    """Return `key` if a header can carry it; raises `ConfigError` that names `origin`."""
    if key and key.isprintable() and key == key.strip():
        return key
    raise ConfigError(
        f"The key from {origin} has control characters, or spaces around it: often the end of a"
        " line. Give the key alone."
    )


def with_key(headers: dict[str, str], key: str | None) -> httpx.Headers:
    """Return `headers`, and the key if there is one."""
    return httpx.Headers({**headers, **({"X-API-Key": key} if key else {})}, encoding="utf-8")
