"""Check that the top-level boxes of an MP4 or MOV file form a chain up to its last byte.

`mp4_fragments` checks the fragments of a recording. A second file after the first, as `cat` makes
it, has its own `ftyp` and `moov`; players show one of the two. Other bytes after whole `moov` and
`mdat` boxes (a camera's own trailer, a line feed) are no damage: no frame can be in them. Zeros are, as
a download that was never finished leaves them; and so is anything after fragments, unless their index
came last: a lost fragment would look the same.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from distconv_engine.failures import InputFault, cut_short
from distconv_engine.media.structure.chunk_chains import is_printable, quoted
from distconv_engine.media.structure.concatenated import two_in_one
from distconv_engine.media.structure.facts import Structure
from distconv_engine.media.structure.mp4_fragments import READ_BYTES_MAX, Fragments, check_index

_BOXES_MAX = 1_000_000
_DURATIONS = re.compile(rb"(?:mvhd|mdhd)([\x00\x01])\x00\x00\x00")
"""The boxes with a duration, and their version."""
_TRAILER_BYTES = 1 << 20
"""How far a second file is searched for in bytes that are no box."""
_LOOKED_INTO = frozenset({b"moov", b"moof", b"mfra", b"sidx"})
_KINDS = _LOOKED_INTO | {
    *(b"ftyp", b"mdat", b"free", b"skip", b"wide", b"udta", b"meta", b"uuid", b"styp", b"pdin"),
    *(b"ssix", b"prft", b"emsg", b"pnot", b"PICT", b"junk"),
}
"""The boxes that may stand at the top: others may be text that looks like one."""


def check_mp4(file: BinaryIO, size: int) -> Structure:
    """Follow the chain; raises `InputFault` where it is broken or incomplete."""
    chain = _Chain(size)
    for kind, start, length in _boxes(file, size):
        is_box = length >= 8 and is_printable(kind)
        if chain.is_whole and not (is_box and (kind in _KINDS or start + length <= size)):
            _check_trailer(file, start, size)
            chain.close()
            return Structure(trailer_at=start, unset_length=chain.unset_length)
        if not is_box:
            raise _no_box(start, size)
        if start + length > size:
            raise cut_short(f"the mp4 box {quoted(kind)}", start + length, size)
        content = b""
        if kind in _LOOKED_INTO and length <= READ_BYTES_MAX:
            file.seek(start + 8)
            content = file.read(length - 8)
        chain.add(kind, content, start, start + length)
    chain.close()
    return Structure(unset_length=chain.unset_length)


@dataclass(slots=True)
class _Chain:
    """What the boxes so far have shown."""

    size: int
    seen: set[bytes] = field(default_factory=set[bytes])
    fragments: Fragments = field(default_factory=Fragments)
    second: int | None = None
    """Where another header begins after frames."""
    unset_length: bool = False
    """The header's duration is all ones: unknown, as a recorder writes it that cannot go back."""

    def add(self, kind: bytes, content: bytes, start: int, end: int) -> None:
        if kind == b"ftyp" and {b"moov", b"mdat"} <= self.seen:
            self.second = start
        if self.second is not None and self._is_another(kind, content):
            raise two_in_one(self.second)
        self.seen.add(kind)
        if kind == b"moov":
            self.unset_length = _is_duration_unset(content)
            self.fragments.header(content, start if self.second is None else self.second)
        elif kind == b"moof":
            self.fragments.add(content, start)
        elif kind == b"mfra":
            self.fragments.index(content)
        elif kind == b"sidx":
            check_index(content, end, self.size)

    def _is_another(self, kind: bytes, content: bytes) -> bool:
        """Whether what follows the second header is a separate file: a fragmented recording may
        repeat its header, but not after the index that ends it."""
        if kind == b"moov":
            return b"moof" not in self.seen or b"mvex" not in content
        return kind == b"moof" and b"mfra" in self.seen

    @property
    def is_whole(self) -> bool:
        """Whether index and frames are there, and no fragments of which more might follow."""
        return {b"moov", b"mdat"} <= self.seen and (
            not self.fragments.starts or b"mfra" in self.seen
        )

    def close(self) -> None:
        self.fragments.close()
        if not self.seen & {b"moov", b"moof"}:
            raise InputFault(
                "The source is cut or was never finished: it has no mp4 box 'moov', "
                "which lists its frames."
            )
        if b"mdat" not in self.seen:
            raise InputFault("The source is only a header: it has no mp4 box 'mdat' with frames.")


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Iterate over the top-level boxes: kind, start, length; what is no box ends it, as the last."""
    start = 0
    for _ in range(_BOXES_MAX):
        if start >= size:
            return
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            yield b"", start, 0
            return
        length, kind = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:  # by the standard, it extends to the end of the file
            length = size - start
        yield kind, start, length
        if length < 8 or not is_printable(kind):
            return
        start += length


def _no_box(start: int, size: int) -> InputFault:
    if size - start < 8:
        return cut_short("an mp4 box header", start + 8, size)
    return InputFault(f"The source is damaged: an mp4 box should begin at byte {start}.")


def _check_trailer(file: BinaryIO, start: int, size: int) -> None:
    """Refuse zeros, the beginning of a box, and a second file in the bytes after the last box."""
    file.seek(start)
    trailer = file.read(_TRAILER_BYTES)
    if not trailer[:8].strip(b"\0") or (len(trailer) < 8 and trailer.startswith(b"\0")):
        raise _no_box(start, size)
    at = trailer.find(b"ftyp")
    if at >= 4:
        raise two_in_one(start + at - 4)


def _is_duration_unset(moov: bytes) -> bool:
    """Whether the duration of the film (`mvhd`) or of a track (`mdhd`) is all ones."""
    for found in _DURATIONS.finditer(moov):
        start, length = (28, 8) if found[1] == b"\1" else (20, 4)
        if moov[found.start() + start :][:length] == b"\xff" * length:
            return True
    return False
