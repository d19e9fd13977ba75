"""Correct the marks of tracks that ffmpeg's muxer for MP4 and MOV sets by itself.

It enables the first track of each kind if none is a default. For picture and sound this is right: a player
has to play something. Subtitles that are no default would be shown to everybody, so their flag is cleared in
the finished file: one byte of the track's header (`tkhd`, ISO 14496-12, section 8.3.2).
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO

from distconv_engine.encode.plan import Plan

_ENABLED = 1
_BOXES_MAX = 10_000


def correct_marks(path: Path, plan: Plan) -> None:
    """Disable the subtitles of the file at `path` that are no default in the source."""
    tracks = disabled_tracks(plan)
    if not tracks:
        return
    with path.open("r+b") as file:
        moov = _find(file, 0, os.fstat(file.fileno()).st_size, b"moov")[0]
        for number, (start, end) in enumerate(_find(file, *moov, b"trak")):
            if number in tracks:
                _disable(file, _find(file, start, end, b"tkhd")[0][0])


def disabled_tracks(plan: Plan) -> frozenset[int]:
    """Return the tracks that are no default, but would be one; pure."""
    subtitles = [
        (number, stream_out.stream)
        for number, stream_out in enumerate(plan.output_streams)
        if stream_out.stream.kind == "subtitle"
    ]
    has_default = any("default" in stream.marks for _, stream in subtitles)
    if has_default or not plan.states_marks or not plan.container.family.enables_first_subtitles:
        return frozenset()
    return frozenset(number for number, _ in subtitles)


def _disable(file: BinaryIO, content: int) -> None:
    """Clear the flag; `content` is where the box's version and its 24 flags are."""
    file.seek(content + 3)
    flags = file.read(1)[0]
    file.seek(content + 3)
    file.write(bytes([flags & ~_ENABLED]))


def _find(file: BinaryIO, start: int, end: int, wanted: bytes) -> list[tuple[int, int]]:
    """Return where the contents of all boxes of a kind begin and end, within `start` to `end`."""
    found: list[tuple[int, int]] = []
    for _ in range(_BOXES_MAX):
        if start + 8 > end:
            break
        file.seek(start)
        length, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if length == 1:
            length, head = int.from_bytes(file.read(8), "big"), 16
        if kind == wanted:
            found.append((start + head, start + length))
        start += max(length, 8)
    return found
