"""Check the daemon's API key and add it to requests.

A key beyond ASCII is sent as UTF-8, which is how the daemon compares it. A key that no header can
carry is rejected before anything is sent; the error names its origin and never shows its value.
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
    """Return `headers`, with the key if there is one."""
    return httpx.Headers({**headers, **({"X-API-Key": key} if key else {})}, encoding="utf-8")
