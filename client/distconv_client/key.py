"""The daemon's key: what one may look like, and how it goes into a request.

A key beyond ASCII goes as UTF-8, as the daemon compares it. One that no header can carry is refused
before anything is sent, by the name of where it came from: its value is never shown.
"""

import httpx

from distconv_client.errors import BadInput


def checked_key(key: str, origin: str) -> str:
    """Return `key` if a header can carry it; raises `BadInput` that names `origin`."""
    if key.isprintable() and key == key.strip():
        return key
    raise BadInput(
        f"The key from {origin} has control characters, or spaces around it.",
        hint="Often it is the end of a line, such as a file's; give the key alone.",
    )


def key_headers(key: str | None) -> httpx.Headers:
    """Return the headers that say who is calling."""
    return httpx.Headers({} if key is None else {"X-API-Key": key}, encoding="utf-8")
