"""Check the daemon's key, and put it into requests.

A key beyond ASCII is sent as UTF-8, as the daemon compares it. A key that no header can carry is
rejected before anything is sent; the message names its origin and never shows its value.
"""

import httpx

from distconv_client.errors import BadInput


def checked_key(key: str, origin: str) -> str:
    """Return `key` if a header can carry it; otherwise raises `BadInput`, which names `origin`."""
    if key.isprintable() and key == key.strip():
        return key
    raise BadInput(
        f"The key from {origin} has control characters, or starts or ends with a space.",
        hint="Often a line end was copied with the key; give the key alone.",
    )


def key_headers(key: str | None) -> httpx.Headers:
    """Return the headers that authenticate a request."""
    return httpx.Headers({} if key is None else {"X-API-Key": key}, encoding="utf-8")
