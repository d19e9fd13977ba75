"""Patch the bytes of sound files, as only other programs write them: edit lists, and Opus' pre-skip."""

import struct
from collections.abc import Iterator, Sequence

_OGG_POLYNOMIAL = 0x04C11DB7


def _boxes(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Iterate over (kind, start, size) of the boxes of an MP4 between two places."""
    while start < end:
        size, kind = struct.unpack(">I4s", content[start : start + 8])
        yield kind, start, size
        start += size


def _find(content: bytes, path: Sequence[bytes], start: int, end: int) -> tuple[int, int]:
    for kind, at, size in _boxes(content, start, end):
        if kind == path[0]:
            return (at, size) if len(path) == 1 else _find(content, path[1:], at + 8, at + size)
    raise LookupError(path)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def with_edits(content: bytes, parts: Sequence[tuple[int, int]]) -> bytes:
    """Return an MP4, whose `moov` is last, with an edit list of `parts` (start and length in s) a track."""
    at, size = _find(content, [b"moov"], 0, len(content))
    assert at + size == len(content), "an index in front would have to be moved"
    head, _ = _find(content, [b"moov", b"mvhd"], 0, len(content))
    (scale,) = struct.unpack(">I", content[head + 20 : head + 24])
    length = struct.pack(">I", scale * sum(seconds for _, seconds in parts))
    moov = b""
    for kind, start, length_of_box in _boxes(content, at + 8, at + size):
        box = content[start : start + length_of_box]
        if kind == b"mvhd":
            box = box[:24] + length + box[28:]
        elif kind == b"trak":
            box = _edited_track(content, start, length_of_box, parts, scale, length)
        moov += box
    return content[:at] + _box(b"moov", moov)


def _edited_track(
    content: bytes, at: int, size: int, parts: Sequence[tuple[int, int]], scale: int, length: bytes
) -> bytes:
    head, _ = _find(content, [b"mdia", b"mdhd"], at + 8, at + size)
    (ticks,) = struct.unpack(">I", content[head + 20 : head + 24])
    edits, _ = _find(content, [b"edts", b"elst"], at + 8, at + size)
    (first,) = struct.unpack(">i", content[edits + 20 : edits + 24])
    rows = [(seconds * scale, start * ticks + first, 0x10000) for start, seconds in parts]
    table = struct.pack(">II", 0, len(rows)) + b"".join(struct.pack(">IiI", *row) for row in rows)
    track = b""
    for kind, start, length_of_box in _boxes(content, at + 8, at + size):
        box = content[start : start + length_of_box]
        if kind == b"tkhd":
            track += box[:28] + length + box[32:] + _box(b"edts", _box(b"elst", table))
        elif kind != b"edts":
            track += box
    return _box(b"trak", track)


def with_pre_skip(content: bytes, samples: int) -> bytes:
    """Return an Ogg Opus whose players skip so many samples (at 48 kHz) at its beginning."""
    first = bytearray(content[: 27 + content[26] + sum(content[27 : 27 + content[26]])])
    head = first.index(b"OpusHead")
    first[head + 10 : head + 12] = struct.pack("<H", samples)
    first[22:26] = bytes(4)
    first[22:26] = struct.pack("<I", _ogg_checksum(bytes(first)))
    return bytes(first) + content[len(first) :]


def _ogg_checksum(page: bytes) -> int:
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            carry = checksum & 0x8000_0000
            checksum = (checksum << 1 & 0xFFFF_FFFF) ^ (_OGG_POLYNOMIAL if carry else 0)
    return checksum
