"""Build replies and read common request parts: JSON bytes, versions, waiting, paging."""

import hashlib
import re
from collections.abc import Mapping

import msgspec

from distconvd.edge.http import Response
from distconvd.errors import BadRequest

WAIT_S_MAX = 60.0
"""The longest time that a long poll may wait."""

# A value may be quoted, with spaces around the equals sign (RFC 7240 section 2).
_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*("?)(\d{1,6})\1(?:$|[,;\s])', re.IGNORECASE)


def json_reply(
    body: bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a reply with bytes that are JSON already."""
    return Response(status, body, headers=headers or {})


def encoded(value: object, status: int = 200) -> Response:
    """Return a reply with a value encoded as JSON."""
    return Response(status, msgspec.json.encode(value))


def array_of(records: list[bytes]) -> bytes:
    """Return records as one JSON array."""
    return b"[" + b",".join(records) + b"]"


def job_reply(record: bytes) -> Response:
    """Return a job with its version as `ETag`."""
    return Response(200, record, headers={"ETag": etag_of(record)})


def etag_of(record: bytes) -> str:
    """Return the version of a record, as an `ETag`."""
    return f'"{hashlib.blake2b(record, digest_size=8).hexdigest()}"'


def names_version(header: str, etag: str) -> bool:
    """Whether an `If-None-Match` names this version (RFC 9110 section 13.1.2: weakly compared)."""
    named = [part.strip().removeprefix("W/") for part in header.split(",")]
    return "*" in named or etag in named


def etag_matches_strong(header: str, etag: str) -> bool:
    """Whether an `If-Match` names this version (section 13.1.1: strongly compared)."""
    named = [part.strip() for part in header.split(",")]
    return "*" in named or etag in named


def wait_s_of(headers: Mapping[str, str]) -> float:
    """Return how long a caller prefers to wait (`Prefer: wait=N`, RFC 7240); 0 by default."""
    found = _WAIT.search(headers.get("prefer", ""))
    return min(float(found.group(2)), WAIT_S_MAX) if found else 0.0


def count_of(query: Mapping[str, str], name: str, most: int) -> int | None:
    """Return a positive number from the query, at most `most`; raises `BadRequest`."""
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:12]) <= most:
        raise BadRequest(f"'{name}' must be a number from 1 to {most}.", field=name)
    return int(text)


def flag_of(query: Mapping[str, str], name: str) -> bool:
    """Return a boolean from the query; raises `BadRequest`."""
    text = query.get(name, "false").lower()
    if text not in ("true", "false", "1", "0", ""):
        raise BadRequest(f"'{name}' must be true or false.", field=name)
    return text in ("true", "1", "")
