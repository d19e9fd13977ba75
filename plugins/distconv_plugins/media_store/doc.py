"""What the media store's routes take and answer; see `distconvd.edge.doc`."""

import msgspec

from distconvd.errors import (
    Conflict,
    InsufficientStorage,
    NotFound,
    RangeNotSatisfiable,
)
from distconvd.plugin_api import Answer, Doc, Parameter

_DIGEST = "sha-256=:hc8GzB/m8v+51oaeN2Kqbt/eZoEKVdxEl5aMW8KO8hM=:"
_FILE = {
    "ETag": "The file's version.",
    "Last-Modified": "When it came.",
    "Accept-Ranges": "`bytes`",
}
_DIGEST_HEADER_DOC = {"Repr-Digest": "The whole file's, where the disk could note it (RFC 9530)."}
_OFFSET = {"X-Upload-Offset": "How many bytes of the upload are here."}


class MediaReply(msgspec.Struct, frozen=True):
    """What a PUT answers."""

    url: str
    """An absolute-path reference: resolve it against the daemon's own URL."""
    path: str
    """Where it lies on the daemon's machine."""
    size_bytes: int
    sha256: str


_STORED = MediaReply(
    "/media/holiday/output.mp4",
    "/var/lib/distconv/distconv-media/holiday/output.mp4",
    17,
    "85cf06cc1fe6f2ffb9d6869e3762aa6edfde66810a55dc4497968c5bc28ef213",
)
_DIGEST_HEADER = Parameter("Repr-Digest", "header", "The whole file's (RFC 9530).", str, _DIGEST)

PUT = Doc(
    {
        201: Answer(
            "The file is there, whole.",
            MediaReply,
            headers={"Location": "Its URL.", "Repr-Digest": "Its digest."},
            example=_STORED,
        ),
        202: Answer("A piece is here, and more is to come.", None, None, _OFFSET),
    },
    (Conflict, InsufficientStorage),
    (
        _DIGEST_HEADER,
        Parameter("Content-Range", "header", "Go on with a broken upload.", str, "bytes 0-16/17"),
    ),
    problem_headers={409: {"X-Upload-Offset": "Where to go on, if less is here than was thought."}},
)
GET = Doc(
    {
        200: Answer("The file.", None, "*/*", _FILE, _DIGEST_HEADER_DOC),
        206: Answer(
            "The range of it.",
            None,
            "*/*",
            {**_FILE, "Content-Range": "Which."},
            _DIGEST_HEADER_DOC,
        ),
        304: Answer(
            "It is still the version of `If-None-Match`.", None, None, _FILE, _DIGEST_HEADER_DOC
        ),
    },
    (NotFound, RangeNotSatisfiable),
    (
        Parameter("Range", "header", "One range.", str, "bytes=0-2"),
        Parameter("If-Range", "header", "Only while it is this version."),
        Parameter("If-None-Match", "header", "A version that is known already."),
    ),
)
HEAD = Doc(
    {
        200: Answer(
            "What GET would answer, without the body.", None, None, _FILE, _DIGEST_HEADER_DOC
        ),
        204: Answer("How much of an upload is here.", None, None, _OFFSET),
        304: Answer(
            "It is still the version of `If-None-Match`.", None, None, _FILE, _DIGEST_HEADER_DOC
        ),
    },
    (NotFound,),
    (
        _DIGEST_HEADER,
        Parameter("X-Upload-Length", "header", "Ask about an upload of this size.", str, "17"),
    ),
)
