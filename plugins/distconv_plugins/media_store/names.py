"""Check the names of media files, and derive their URLs and media types."""

import unicodedata
from urllib.parse import quote

from distconvd.errors import BadRequest
from distconvd.model import CONTAINERS

SEGMENTS_MAX = 8
SEGMENT_BYTES_MAX = 255
UPLOADS = ".uploads"
"""The store's own folder; no name begins with it."""

_TYPES = {row.suffix: row.mime for row in CONTAINERS.values()} | {
    ".m4v": CONTAINERS["mp4"].mime,
    ".avi": "video/vnd.avi",
    ".ogv": "video/ogg",
    ".m4a": "audio/mp4",
    ".opus": "audio/ogg",
    ".vtt": "text/vtt; charset=utf-8",
    ".srt": "application/x-subrip",
}


def parse_name(name: str) -> tuple[str, ...]:
    """Return a name's segments.

    Raises:
        BadRequest: a segment is empty, `.` or `..`, too long, or contains what no file name
            should; or there are too many.
    """
    segments = tuple(name.split("/"))
    if len(segments) > SEGMENTS_MAX:
        raise BadRequest(f"A media name has at most {SEGMENTS_MAX} segments.", field="name")
    for segment in segments:
        _check(segment)
    if segments[0] == UPLOADS:
        raise BadRequest(f"{UPLOADS!r} is the media store's own folder.", field="name")
    return segments


def url_of(segments: tuple[str, ...]) -> str:
    """Return the absolute-path reference of a stored file."""
    return "/media/" + "/".join(quote(segment, safe="") for segment in segments)


def content_type_of(name: str) -> str:
    """Return the media type by suffix; never one that a browser would run as a page."""
    dot = name.rfind(".")
    return _TYPES.get(name[dot:].lower() if dot >= 0 else "", "application/octet-stream")


def _check(segment: str) -> None:
    if segment in ("", ".", ".."):
        raise BadRequest("A media name has no empty segment, '.' or '..'.", field="name")
    # Control characters (Cc), lone surrogates (Cs); and U+2028, U+2029, which break lines.
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in segment):
        raise BadRequest("A media name may not contain control characters.", field="name")
    if "\\" in segment:
        raise BadRequest("A media name may not contain a backslash: use '/'.", field="name")
    if len(segment.encode()) > SEGMENT_BYTES_MAX:
        raise BadRequest(
            f"A segment of a media name has at most {SEGMENT_BYTES_MAX} bytes.", field="name"
        )
