"""Compress the packets of a Matroska file's tracks with zlib, which ffmpeg cannot.

mkvmerge does so with VobSub and PGS by default and, if told to, with every track; ffmpeg reads such files.
"""

import zlib
from collections.abc import Collection, Iterator

MASTERS = frozenset({0x18538067, 0x1F43B675, 0x1654AE6B, 0xA0})
"""Segment, Cluster, Tracks, BlockGroup: what contains something that changes."""
TRACK, NUMBER, ENCODINGS = 0xAE, 0xD7, 0x6D80
BLOCKS = frozenset({0xA3, 0xA1})
DROPPED = frozenset({0x114D9B74, 0x1C53BB6B, 0xEC, 0xBF})
"""SeekHead, Cues, Void and checksums: positions and sums that would be wrong afterwards."""


def compressed(film: bytes, tracks: Collection[int]) -> bytes:
    """Return the file with the packets of these tracks, numbered from 1, compressed."""
    return b"".join(_rewritten(kind, body, tracks) for kind, body in _elements(film))


def _rewritten(kind: int, body: bytes, tracks: Collection[int]) -> bytes:
    if kind in DROPPED:
        return b""
    if kind in MASTERS:
        body = compressed(body, tracks)
    elif kind == TRACK:
        body = _track(body, tracks)
    elif kind in BLOCKS and body[0] & 0x7F in tracks:
        body = body[:4] + zlib.compress(body[4:])
    return _element(kind, body)


def _track(body: bytes, tracks: Collection[int]) -> bytes:
    number = next(value for kind, value in _elements(body) if kind == NUMBER)
    if int.from_bytes(number, "big") not in tracks:
        return body
    compression = _element(0x5034, _element(0x4254, b"\0"))  # zlib; of packets, by default
    return body + _element(ENCODINGS, _element(0x6240, compression))


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Each element's ID and body."""
    place = 0
    while place < len(content):
        length = 9 - content[place].bit_length()
        kind = int.from_bytes(content[place : place + length], "big")
        place += length
        length = 9 - content[place].bit_length()
        size = int.from_bytes(content[place : place + length], "big") & ((1 << 7 * length) - 1)
        place += length
        yield kind, content[place : place + size]
        place += size


def _element(kind: int, body: bytes) -> bytes:
    name = kind.to_bytes((kind.bit_length() + 7) // 8, "big")
    return name + (len(body) | 1 << 56).to_bytes(8, "big") + body
