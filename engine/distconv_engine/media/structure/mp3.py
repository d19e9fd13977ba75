"""Check that an MP3 (or MP2) file contains all that its headers state.

Each frame states its length, and most files begin with a frame that states the length of the whole:
the `Xing` or `Info` header. Demuxers accept whatever frames there are, and decoders an incomplete
last one, so without this check a file cut to any length reads as a whole shorter one. A cut exactly
between two frames, in a file without that header, cannot be seen.
"""

from typing import BinaryIO

from distconv_engine.failures import cut_short

_TAIL_BYTES = 16_384
_CHAIN_FRAMES = 4
"""This many headers, each where the one before says, are not a coincidence."""
_FRAME_BYTES_MAX = 2881
_RATES = (44_100, 48_000, 32_000)
_KBPS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""The bit rates of ISO 11172-3 and 13818-3, by MPEG version and layer."""
_XING_BYTES = 0x02


def mp3_start(file: BinaryIO) -> int | None:
    """Return where the first frame begins, after an ID3 tag; None: it is not such a file."""
    file.seek(0)
    head = file.read(10)
    start = 0
    if head.startswith(b"ID3") and len(head) == 10:
        length = sum(
            (byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
        )
        start = 10 + length + (10 if head[5] & 0x10 else 0)
    file.seek(start)
    first = frame_bytes(file.read(4))
    if first is None:
        return None
    file.seek(start + first)
    return start if frame_bytes(file.read(4)) is not None else None


def check_mp3(file: BinaryIO, size: int, start: int) -> None:
    """Raise `InputFault` when the file ends before its header or its last frame does."""
    file.seek(start)
    stated = _stated_bytes(file.read(_FRAME_BYTES_MAX))
    # Writers disagree on whether the header's own frame is included.
    if start + stated - _FRAME_BYTES_MAX > size:
        raise cut_short("its Xing header", start + stated, size)
    begin = max(start, size - _TAIL_BYTES)
    file.seek(begin)
    end = _end_of_frames(file.read())
    if end is not None and begin + end > size:
        raise cut_short("its last frame", begin + end, size)


def frame_bytes(head: bytes) -> int | None:
    """Return the length that a frame's four-byte header states; None: it is not a header."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = (head[1] >> 3) & 3, 4 - ((head[1] >> 1) & 3)
    kbps_at, rate_at, padding = head[2] >> 4, (head[2] >> 2) & 3, (head[2] >> 1) & 1
    if version == 1 or layer == 4 or rate_at == 3 or kbps_at in (0, 15):
        return None  # reserved, or without a stated bit rate
    family = 1 if version == 3 else 2
    kbps = _KBPS[family, 2 if family == 2 and layer == 3 else layer][kbps_at - 1]
    rate = _RATES[rate_at] // {3: 1, 2: 2, 0: 4}[version]
    if layer == 1:
        return (12_000 * kbps // rate + padding) * 4
    return (72_000 if family == 2 and layer == 3 else 144_000) * kbps // rate + padding


def _stated_bytes(frame: bytes) -> int:
    """Return the length of all frames by the Xing or Info header; 0: it states none."""
    is_first_family, is_mono = (frame[1] >> 3) & 3 == 3, frame[3] >> 6 == 3
    side = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}
    at = 4 + side[is_first_family, is_mono]
    if frame[at : at + 4] not in (b"Xing", b"Info") or len(frame) < at + 16:
        return 0
    flags = frame[at + 7]
    place = at + 8 + (4 if flags & 0x01 else 0)
    return int.from_bytes(frame[place : place + 4], "big") if flags & _XING_BYTES else 0


def _end_of_frames(tail: bytes) -> int | None:
    """Follow the frames in `tail`; return where the last one should end; None: no frame is found."""
    for first in range(min(len(tail), 2 * _FRAME_BYTES_MAX)):
        at, count = first, 0
        while (length := frame_bytes(tail[at : at + 4])) is not None:
            at, count = at + length, count + 1
        if count >= _CHAIN_FRAMES:
            return at
    return None
