"""Is a file two, one behind the other, as `cat a b` makes it?

Most demuxers stop where the first file says that it ends, and the second is lost without a word. So
where a container states its end, the next byte must not begin another one; where only the demuxer
knows the end, what follows its last packet is searched. Formats that are nothing but packets (MP3,
TS, raw H.264, AVI by its index) can be joined, and are converted whole.
"""

from typing import BinaryIO

from distconv_engine.failures import InputFault

ASF_MAGIC = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
EBML_MAGIC = b"\x1a\x45\xdf\xa3"
_BEGINNINGS = (ASF_MAGIC, EBML_MAGIC, b"RIFF", b"RF64", b"FORM", b".snd", b"FLV\x01")
_SEARCHED = (
    b"RF64",
    b"riff\x2e\x91\xcf\x11",  # Wave64
    b"caff",
    b"FLV\x01",  # from a pipe
    b"TTA1",
    b"\xb7\xd8\x00\x20\x37\x49\xda\x11",  # WTV
)
"""How files begin whose demuxers stop at the first one's end, which they do not state up front."""
_TAIL_BYTES = 1 << 16


def two_in_one(start: int) -> InputFault:
    """Return the failure of a file in which another one begins at byte `start`."""
    return InputFault(
        f"The source is two files in one: a second one begins at byte {start}, and players show one "
        "of them only. Convert each alone."
    )


def check_end(file: BinaryIO, end: int) -> None:
    """Raise `InputFault` when another file begins at byte `end`, where this one says it ends."""
    file.seek(end)
    if file.read(16).startswith(_BEGINNINGS):
        raise two_in_one(end)


def check_tail(file: BinaryIO, last: int) -> None:
    """Raise `InputFault` when a file begins again behind byte `last`, the end of its last packet."""
    file.seek(0)
    head = file.read(16)
    magic = next((magic for magic in _SEARCHED if head.startswith(magic)), None)
    if magic is None:
        return
    last = max(last, len(head))
    file.seek(last)
    at = file.read(_TAIL_BYTES).find(magic)
    if at >= 0:
        raise two_in_one(last + at)
