"""Write a Blu-ray subtitle of one white box, since ffmpeg does not turn text into pictures.

The segments are as ffmpeg's `pgssubdec` reads them: presentation, window, palette, object, end.
"""

import struct

_SIDE = 8


def sup(start_s: float, end_s: float) -> bytes:
    """Return a `.sup` file that shows a box of 8 by 8 pixels from `start_s` to `end_s`."""
    window = struct.pack(">BBHHHH", 1, 0, 0, 0, _SIDE, _SIDE)
    palette = bytes([0, 0, 1, 235, 128, 128, 255])
    line = bytes([0, 0x80 | _SIDE, 1, 0, 0])  # a run of colour 1, and the end of the line
    pixels = struct.pack(">HH", _SIDE, _SIDE) + line * _SIDE
    head = struct.pack(">HBB", 0, 0, 0xC0) + (len(pixels)).to_bytes(3, "big")
    shown = _segment(start_s, 0x16, _presentation(0, 0x80, shows=True))
    shown += _segment(start_s, 0x17, window) + _segment(start_s, 0x14, palette)
    shown += _segment(start_s, 0x15, head + pixels) + _segment(start_s, 0x80, b"")
    hidden = _segment(end_s, 0x16, _presentation(1, 0x00, shows=False))
    return shown + hidden + _segment(end_s, 0x17, window) + _segment(end_s, 0x80, b"")


def _presentation(number: int, state: int, *, shows: bool) -> bytes:
    objects = struct.pack(">HBBHH", 0, 0, 0, 0, 0) if shows else b""
    return struct.pack(">HHBHBBBB", 160, 90, 0x10, number, state, 0, 0, int(shows)) + objects


def _segment(time_s: float, kind: int, content: bytes) -> bytes:
    ticks = int(time_s * 90_000)
    return struct.pack(">2sIIBH", b"PG", ticks, 0, kind, len(content)) + content
