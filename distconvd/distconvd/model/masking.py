"""Mask the secrets of URLs: user and password, and the values of a query.

A signed URL carries its secret in the query, under names that differ from service to service, so all
values of a query are masked; so is a fragment. Scheme, host, path and the names in the query stay,
which is enough to recognize a source. A secret in a path cannot be recognized.
"""

import re
from typing import Any

import msgspec

MASK = "***"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://)(\S*)")
_AUTHORITY = re.compile(r"[^/?#]*")
_TRAILING = ".,:;)]}>'\""
"""Punctuation of the sentence around a URL; it stays."""
_MAY_HAVE_SECRETS = (b"@", b"?", b"#", b"\\")
"""Without any of these a record has no secret: user and query need the first three, and the last may
hide one of them."""


def mask_urls(text: str) -> str:
    """Return a text with the secrets of all URLs in it masked."""
    return _URL.sub(_masked, text) if "://" in text else text


def mask_record(record: bytes) -> bytes:
    """Return a JSON record with the secrets of all URLs in it masked."""
    if not may_have_secrets(record):
        return record
    return msgspec.json.encode(_masked_value(msgspec.json.decode(record)))


def may_have_secrets(record: bytes) -> bool:
    """Whether `mask_record` might change a record; quick, and never wrongly False."""
    return any(mark in record for mark in _MAY_HAVE_SECRETS)


def _masked_value(value: Any) -> Any:
    if isinstance(value, str):
        return mask_urls(value)
    if isinstance(value, list):
        return [_masked_value(each) for each in value]  # pyright: ignore[reportUnknownVariableType] - any JSON
    if isinstance(value, dict):
        return {name: _masked_value(each) for name, each in value.items()}  # pyright: ignore[reportUnknownVariableType] - any JSON
    return value


def _masked(match: re.Match[str]) -> str:
    scheme, rest = match.groups()
    url = rest.rstrip(_TRAILING)
    trailing = rest[len(url) :]
    authority = _AUTHORITY.match(url)
    end = authority.end() if authority else 0
    host = url[:end].rpartition("@")
    shown = f"{MASK}@{host[2]}" if host[1] else host[2]
    before, hash_sign, fragment = url[end:].partition("#")
    path, question, query = before.partition("?")
    if question:
        path += "?" + "&".join(_masked_field(each) for each in re.split("[&;]", query))
    if hash_sign:
        path += "#" + (MASK if fragment else "")
    return scheme + shown + path + trailing


def _masked_field(field: str) -> str:
    name, equals, _ = field.partition("=")
    if equals:
        return f"{name}={MASK}"
    return MASK if field else ""
