"""Check that a file contains all the bytes that its own container states, without ffmpeg.

Demuxers are built to play what is there, so a cut file often reads as a shorter whole one. Most
containers state a length somewhere, and these checks compare it with the file:

- MP4, MOV: see `mp4` and `mp4_fragments`.
- Matroska, WebM: the segment's stated size must lie within the file.
- AVI, WAV: the RIFF size likewise, and AVI's chain of chunks must be unbroken.
- FLV: the stated size likewise, and the last tag's back pointer must point at a tag of that size.
- MPEG-TS: whole packets, each with its sync byte.
- Ogg: the last page must be whole and close its stream.
- MP3: see `mp3`. MXF, ASF, DV, AU, AIFF, CAF: see `chunk_chains`.

If a container states its end, no other file may begin there (`concatenated`).

What no check can see: a cut exactly between units of a container that states no length (a TS
between packets, a live WebM between clusters).
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from distconv_engine.failures import InputFault, cut_short
from distconv_engine.media.structure.chunk_chains import (
    DV_MAGIC,
    MXF_MAGIC,
    UNITS_MAX,
    check_aiff,
    check_asf,
    check_au,
    check_caf,
    check_dv,
    check_mxf,
    is_printable,
    quoted,
)
from distconv_engine.media.structure.concatenated import ASF_MAGIC, EBML_MAGIC, check_end
from distconv_engine.media.structure.facts import Structure, ends_at
from distconv_engine.media.structure.mp3 import check_mp3, mp3_start
from distconv_engine.media.structure.mp4 import check_mp4
from distconv_engine.media.structure.unusable import check_usable

_SEGMENT_ID = 0x18538067
_BOXES_FIRST = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot"})
_UNSET = (0, 0xFFFFFFFF)
"""Lengths that a program leaves in a header when it cannot go back to it."""
_WAV_CHUNKS_MAX = 1000
_FLV_SCRIPT_BYTES = 16_384
_TS_SYNC = 0x47
_TS_SIZES = (188, 192, 204)
_TS_SYNC_CHECKS = 5
_OGG_TAIL_BYTES = 65_536 + 512
_LISTS_DEEP = 8
_BY_MAGIC = {
    ASF_MAGIC: check_asf,
    MXF_MAGIC: check_mxf,
    DV_MAGIC: check_dv,
    b".snd": check_au,
    b"caff": check_caf,
}


def check_structure(path: Path) -> Structure:
    """Check `path`; returns what its container states of its end.

    Raises:
        InputFault: the file is empty, or contains less than it states.
    """
    with path.open("rb") as file:
        return check_structure_of(file, os.fstat(file.fileno()).st_size)


def check_structure_of(file: BinaryIO, size: int) -> Structure:
    """Check an open file of `size` bytes, as `check_structure` does."""
    if size == 0:
        raise InputFault("The source is empty: 0 bytes.")
    head = file.read(1024)
    if not head.strip(b"\0"):
        raise InputFault(f"The source begins with {len(head)} zero bytes: it was never written.")
    check_usable(file, size)
    check = _check_for(head)
    if check is not None:
        return check(file, size)
    start = mp3_start(file)
    if start is None:
        return Structure(states_length=False)
    check_mp3(file, size, start)
    return Structure()


def is_long_chain(head: bytes) -> bool:
    """Whether every unit of its chain is read, as in AVI: too many requests over HTTP."""
    return is_riff(head) or head.startswith((ASF_MAGIC, MXF_MAGIC))


def is_riff(head: bytes) -> bool:
    """Whether `head` begins an AVI or WAV file."""
    return head.startswith((b"RIFF", b"RF64"))


def _check_for(head: bytes) -> Callable[[BinaryIO, int], Structure] | None:
    if head[4:8] in _BOXES_FIRST:
        return check_mp4
    if head.startswith(EBML_MAGIC):
        return _check_matroska
    if is_riff(head):
        return _check_riff
    if head.startswith(b"FLV\x01"):
        return _check_flv
    if head.startswith(b"OggS"):
        return _check_ogg
    if head.startswith(b"FORM") and head[8:12] in (b"AIFF", b"AIFC"):
        return check_aiff
    for magic, check in _BY_MAGIC.items():
        if head.startswith(magic):
            return check
    return _check_ts if _ts_layout(head) else None


# ------------------------------------------------------------------------------- Matroska, WebM


def _check_matroska(file: BinaryIO, size: int) -> Structure:
    file.seek(4)
    header_bytes = _vint(file)
    start = file.tell() + (header_bytes or 0)
    file.seek(start)
    identity = int.from_bytes(file.read(4), "big")
    if identity != _SEGMENT_ID:
        raise InputFault("The source is cut or damaged: no Matroska segment follows its header.")
    length = _vint(file)
    if length is None:
        return Structure(states_length=False)
    end = file.tell() + length
    if end > size:
        raise cut_short("its Matroska segment", end, size)
    check_end(file, end)
    return ends_at(end, size)


def _vint(file: BinaryIO) -> int | None:
    """Read an EBML length; None stands for an unknown one (live recordings)."""
    first = file.read(1)
    if not first or not first[0]:
        raise InputFault("The source is cut or damaged: its Matroska header is incomplete.")
    width = 9 - first[0].bit_length()
    rest = file.read(width - 1)
    if len(rest) < width - 1:
        raise InputFault("The source is cut: it ends within its Matroska header.")
    mask = (1 << (8 - width)) - 1
    value = int.from_bytes(bytes([first[0] & mask]) + rest, "big")
    return None if value == (1 << (7 * width)) - 1 else value


# ------------------------------------------------------------------------------------- AVI, WAV


def _check_riff(file: BinaryIO, size: int) -> Structure:
    """Check each RIFF chunk; an AVI over 1 GB is a sequence of them."""
    start = 0
    while start + 12 <= size:
        file.seek(start)
        head = file.read(12)
        length = int.from_bytes(head[4:8], "little")
        if not head.startswith(b"RIFF"):
            return Structure(states_length=start > 0, trailer_at=start or None)  # RF64, or others
        if head[8:12] == b"WAVE" and _has_unset_audio(file, start + 12, size):
            return Structure(states_length=False, unset_length=True)
        if length in _UNSET:
            return Structure(states_length=False)
        end = start + 8 + length
        if end > size:
            raise cut_short("its RIFF chunk", end, size)
        if head[8:11] == b"AVI":
            _walk_chunks(file, start + 12, end)
        else:
            check_end(file, end + length % 2)
        start = end + length % 2
    if start == 0:
        raise cut_short("its RIFF header", 12, size)
    return ends_at(start, size)


def _has_unset_audio(file: BinaryIO, start: int, size: int) -> bool:
    """Whether a WAV does not say how much audio it has; raises if it says more than there is."""
    for _ in range(_WAV_CHUNKS_MAX):
        file.seek(start)
        head = file.read(8)
        length = int.from_bytes(head[4:8], "little")
        if len(head) < 8:
            return False
        if head[:4] == b"data":
            if length not in _UNSET and start + 8 + length > size:
                raise cut_short("its audio", start + 8 + length, size)
            return length in _UNSET and start + 8 < size
        start += 8 + length + length % 2
    return False


def _walk_chunks(file: BinaryIO, start: int, end: int, depth: int = 0) -> None:
    """Follow the chain of chunks, also into lists; raise `InputFault` where it is broken."""
    for _ in range(UNITS_MAX):
        if start + 8 > end:
            return
        file.seek(start)
        head = file.read(12)
        kind, length = head[:4], int.from_bytes(head[4:8], "little")
        if not is_printable(kind):
            raise InputFault(f"The source is damaged: an AVI chunk should begin at byte {start}.")
        if start + 8 + length > end:
            raise cut_short(f"the AVI chunk {quoted(kind)}", start + 8 + length, end)
        if kind == b"LIST" and depth < _LISTS_DEEP:
            _walk_chunks(file, start + 12, start + 8 + length, depth + 1)
        start += 8 + length + length % 2


# ------------------------------------------------------------------------------------------ FLV


def _check_flv(file: BinaryIO, size: int) -> Structure:
    if size < 13 + 15:
        raise InputFault(f"The source is only a header: an FLV of {size} bytes.")
    file.seek(0)
    stated_size = _flv_size(file.read(_FLV_SCRIPT_BYTES))
    if stated_size > size:
        raise cut_short("the FLV file, according to its header,", int(stated_size), size)
    end = size
    if stated_size:
        end = int(stated_size)
        check_end(file, end)
    file.seek(end - 4)
    tag_bytes = int.from_bytes(file.read(4), "big")
    start = end - 4 - tag_bytes
    head = b""
    if start >= 13:
        file.seek(start)
        head = file.read(11)
    stated = int.from_bytes(head[1:4], "big") + 11 if len(head) == 11 else None
    if stated != tag_bytes:
        raise InputFault("The source is cut: it ends in the middle of an FLV tag.")
    return ends_at(end, size)


def _flv_size(start: bytes) -> float:
    """Return the size that the script tag states (an AMF number after its key), or 0."""
    key = b"filesize\0"
    at = start.find(key)
    number = start[at + len(key) : at + len(key) + 8]
    return float(struct.unpack(">d", number)[0]) if at >= 0 and len(number) == 8 else 0.0


# -------------------------------------------------------------------------------------- MPEG-TS


def _ts_layout(head: bytes) -> tuple[int, int] | None:
    """Return packet size and offset of the sync byte when `head` looks like a transport stream."""
    for packet in _TS_SIZES:
        offset = 4 if packet == 192 else 0
        checks = range(offset, min(len(head), offset + packet * _TS_SYNC_CHECKS), packet)
        if len(checks) > 1 and all(head[at] == _TS_SYNC for at in checks):
            return packet, offset
    return None


def _check_ts(file: BinaryIO, size: int) -> Structure:
    file.seek(0)
    layout = _ts_layout(file.read(1024))
    assert layout is not None
    packet, offset = layout
    if size % packet:
        whole = size - size % packet
        raise cut_short("the last transport stream packet", whole + packet, size)
    file.seek(size - packet + offset)
    if file.read(1) != bytes([_TS_SYNC]):
        raise InputFault(
            "The source is damaged: its last transport stream packet has no sync byte."
        )
    return Structure()


# ------------------------------------------------------------------------------------------ Ogg


def _check_ogg(file: BinaryIO, size: int) -> Structure:
    file.seek(max(0, size - _OGG_TAIL_BYTES))
    tail = file.read()
    at = tail.rfind(b"OggS")
    page = tail[at:] if at >= 0 else b""
    if len(page) < 27 or len(page) < 27 + page[26]:
        raise InputFault("The source is cut: it ends within an Ogg page header.")
    needed = 27 + page[26] + sum(page[27 : 27 + page[26]])
    if len(page) < needed:
        start = size - len(page)
        raise cut_short("the last Ogg page", start + needed, size)
    if not page[5] & 0x04:
        raise InputFault("The source is cut: its last Ogg page does not end its stream.")
    return ends_at(size - len(page) + needed, size)
