"""Document what the media store's routes take and answer; see `distconvd.edge.doc`."""

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
    "Last-Modified": "When it was stored.",
    "Accept-Ranges": "`bytes`",
}
_DIGEST_HEADER_DOC = {
    "Repr-Digest": "The digest of the whole file, if the disk could store it (RFC 9530)."
}
_OFFSET = {"X-Upload-Offset": "How many bytes of the upload have arrived."}


class MediaReply(msgspec.Struct, frozen=True):
    """The answer to a PUT."""

    url: str
    """An absolute-path reference: resolve it against the daemon's own URL."""
    path: str
    """Its path on the daemon's machine."""
    size_bytes: int
    sha256: str


_STORED = MediaReply(
    "/media/holiday/output.mp4",
    "/var/lib/distconv/distconv-media/holiday/output.mp4",
    17,
    "85cf06cc1fe6f2ffb9d6869e3762aa6edfde66810a55dc4497968c5bc28ef213",
)
_DIGEST_HEADER = Parameter(
    "Repr-Digest", "header", "The digest of the whole file (RFC 9530).", str, _DIGEST
)

PUT = Doc(
    {
        201: Answer(
            "The file is stored.",
            MediaReply,
            headers={"Location": "Its URL.", "Repr-Digest": "Its digest."},
            example=_STORED,
        ),
        202: Answer("A piece is stored; more must follow.", None, None, _OFFSET),
    },
    (Conflict, InsufficientStorage),
    (
        _DIGEST_HEADER,
        Parameter("Content-Range", "header", "Resume a broken upload.", str, "bytes 0-16/17"),
    ),
    problem_headers={
        409: {
            "X-Upload-Offset": "Where to resume, if fewer bytes have arrived than the range assumes."
        }
    },
)
GET = Doc(
    {
        200: Answer("The file.", None, "*/*", _FILE, _DIGEST_HEADER_DOC),
        206: Answer(
            "The requested range.",
            None,
            "*/*",
            {**_FILE, "Content-Range": "Which range it is."},
            _DIGEST_HEADER_DOC,
        ),
        304: Answer(
            "It is still the version of `If-None-Match`.", None, None, _FILE, _DIGEST_HEADER_DOC
        ),
    },
    (NotFound, RangeNotSatisfiable),
    (
        Parameter("Range", "header", "One range.", str, "bytes=0-2"),
        Parameter("If-Range", "header", "Send the range only if the file is still this version."),
        Parameter("If-None-Match", "header", "A version that is known already."),
    ),
)
HEAD = Doc(
    {
        200: Answer(
            "What GET would answer, without the body.", None, None, _FILE, _DIGEST_HEADER_DOC
        ),
        204: Answer("How much of an upload has arrived.", None, None, _OFFSET),
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
