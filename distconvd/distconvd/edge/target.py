"""Decode a request target (RFC 9112 section 3.2, RFC 3986) into path segments and query.

A path is split first and decoded afterwards, so an encoded slash stays inside its segment. What
cannot be decoded to text is rejected here and never reaches a handler.
"""

import re
from urllib.parse import parse_qsl, unquote_to_bytes

from distconvd.errors import BadRequest

QUERY_FIELDS_MAX = 100
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ABSOLUTE_FORM = re.compile(r"https?://[^/?]*", re.IGNORECASE)


def split_target(target: str) -> tuple[str, str]:
    """Return the raw path and the raw query of an origin-form or absolute-form target."""
    if not target.startswith("/") and target != "*":
        target = _without_authority(target)
    path, _, query = target.partition("?")
    return path, query


def _without_authority(target: str) -> str:
    absolute = _ABSOLUTE_FORM.match(target)
    if absolute is None:
        raise BadRequest("The request target must be a path that begins with '/'.")
    rest = target[absolute.end() :]
    return rest if rest.startswith("/") else "/" + rest


def decode_segments(path: str) -> list[str]:
    """Split a raw path at its slashes and decode each piece; one trailing slash is dropped."""
    pieces = path[1:].split("/")
    if pieces[-1] == "":
        del pieces[-1]
    return [_decode(piece) for piece in pieces] if "%" in path else pieces


def _decode(piece: str) -> str:
    if "%" not in piece:
        return piece
    if _BAD_ESCAPE.search(piece):
        raise BadRequest("The path has a '%' that is not followed by two hexadecimal digits.")
    try:
        text = unquote_to_bytes(piece).decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("The path is not UTF-8 once it is percent-decoded.") from None
    if "\x00" in text:
        raise BadRequest("The path has a NUL character.")
    return text


def decode_query(query: str) -> dict[str, str]:
    """Return the fields of a query; the values of a repeated one are joined with `,`."""
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX
        )
    except UnicodeDecodeError:
        raise BadRequest("The query is not UTF-8 once it is percent-decoded.") from None
    except ValueError:
        raise BadRequest(f"The query has more than {QUERY_FIELDS_MAX} fields.") from None
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields[name] = f"{fields[name]},{value}" if name in fields else value
    return fields
