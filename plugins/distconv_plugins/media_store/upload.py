"""Parse the headers of `PUT /media/…` into a typed upload."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from distconvd.errors import BadRequest, UnsupportedMediaType

_SHA_256 = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]*):\s*(?:;[^,]*)?(?=,|$)")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_LENGTH = re.compile(r"[0-9]{1,18}")


class Upload(NamedTuple):
    """One upload, or a question about one."""

    offset: int
    """Where in the file the body begins."""
    length: int | None
    """Bytes of the body; None if it is chunked."""
    total: int | None
    """Bytes of the whole file; None if not stated."""
    sha256: str | None
    """Of the whole file, in hex; None if not stated."""

    def part_name(self, segments: tuple[str, ...]) -> str | None:
        """Return the name of its part; None if the upload cannot be identified and resumed.

        The name is made of file name, size and digest, so a resumed part is always the same file.
        """
        if self.sha256 is None or self.total is None:
            return None
        identity = f"{'/'.join(segments)}\0{self.total}\0{self.sha256}"
        return "id-" + hashlib.sha256(identity.encode()).hexdigest()


def upload_of(headers: Mapping[str, str]) -> Upload:
    """Return the upload that a PUT announces.

    Raises:
        BadRequest: a header is malformed, or they contradict each other.
        UnsupportedMediaType: the body is compressed.
    """
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("A media file must be sent without a Content-Encoding.")
    length = _number(headers, "content-length")
    sha256 = digest_of(headers)
    if "content-range" not in headers:
        return Upload(0, length, length, sha256)
    match = _CONTENT_RANGE.fullmatch(headers["content-range"].strip())
    if match is None:
        raise BadRequest("Expected a Content-Range such as 'bytes 0-16/17'.", field="Content-Range")
    first, last, total = (int(number) for number in match.groups())
    if not first <= last < total or length not in (None, last - first + 1):
        raise BadRequest(
            "Content-Range contradicts itself or Content-Length.", field="Content-Range"
        )
    if sha256 is None:
        raise BadRequest(
            "An upload in parts needs the Repr-Digest of the whole file.", field="Repr-Digest"
        )
    return Upload(first, last - first + 1, total, sha256)


def question_of(headers: Mapping[str, str]) -> Upload | None:
    """Return the upload that a HEAD asks about, named by `Repr-Digest` and `X-Upload-Length`."""
    if "x-upload-length" not in headers or "repr-digest" not in headers:
        return None
    return Upload(0, 0, _number(headers, "x-upload-length"), digest_of(headers))


def digest_of(headers: Mapping[str, str]) -> str | None:
    """Return the SHA-256 of `Repr-Digest` (RFC 9530) in hex; other algorithms are ignored."""
    value = headers.get("repr-digest", "")
    match = _SHA_256.search(value)
    if match is None:
        if "sha-256=" in value:
            raise BadRequest(
                "Expected a Repr-Digest of the form 'sha-256=:BASE64:'.", field="Repr-Digest"
            )
        return None
    try:
        raw = base64.b64decode(match[1], validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != 32:
        raise BadRequest(
            "The sha-256 of Repr-Digest is not 32 bytes in base64.", field="Repr-Digest"
        )
    return raw.hex()


def digest_header(sha256: str) -> str:
    """Return the value of `Repr-Digest` for a digest in hex."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def _number(headers: Mapping[str, str], name: str) -> int | None:
    value = headers.get(name)
    if value is None:
        return None
    if _LENGTH.fullmatch(value) is None:
        raise BadRequest(f"Expected a number of bytes in {name}.", field=name)
    return int(value)
