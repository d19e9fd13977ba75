"""Check that the top-level boxes of an MP4 or MOV file form a chain up to its last byte.

`mp4_fragments` checks the fragments of a recording. A second file after the first, as `cat` makes
it, has its own `ftyp` and `moov`; players show one of the two.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from distconv_engine.failures import InputFault, cut_short
from distconv_engine.media.structure.chunk_chains import is_printable, quoted
from distconv_engine.media.structure.concatenated import two_in_one
from distconv_engine.media.structure.mp4_fragments import READ_BYTES_MAX, Fragments, check_index

_BOXES_MAX = 1_000_000
_LOOKED_INTO = frozenset({b"moov", b"moof", b"mfra", b"sidx"})


def check_mp4(file: BinaryIO, size: int) -> None:
    """Follow the chain; raises `InputFault` where it is broken or incomplete."""
    chain = _Chain(size)
    for kind, start, length in _boxes(file, size):
        if start + length > size:
            raise cut_short(f"the mp4 box {quoted(kind)}", start + length, size)
        content = b""
        if kind in _LOOKED_INTO and length <= READ_BYTES_MAX:
            file.seek(start + 8)
            content = file.read(length - 8)
        chain.add(kind, content, start, start + length)
    chain.close()


@dataclass(slots=True)
class _Chain:
    """What the boxes so far have shown."""

    size: int
    seen: set[bytes] = field(default_factory=set[bytes])
    fragments: Fragments = field(default_factory=Fragments)
    second: int | None = None
    """Where another header begins after frames."""

    def add(self, kind: bytes, content: bytes, start: int, end: int) -> None:
        if kind == b"ftyp" and {b"moov", b"mdat"} <= self.seen:
            self.second = start
        if self.second is not None and self._is_another(kind, content):
            raise two_in_one(self.second)
        self.seen.add(kind)
        if kind == b"moov":
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
    """Iterate over the top-level boxes: kind, start, length."""
    start = 0
    for _ in range(_BOXES_MAX):
        if start >= size:
            return
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            raise cut_short("an mp4 box header", start + 8, size)
        length, kind = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:  # by the standard, it extends to the end of the file
            length = size - start
        if length < 8 or not is_printable(kind):
            raise InputFault(f"The source is damaged: an mp4 box should begin at byte {start}.")
        yield kind, start, length
        start += length
