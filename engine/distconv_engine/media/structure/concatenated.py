"""Find a second file that was appended to the first, as `cat a b` does.

Most demuxers stop where the first file says that it ends, and silently lose the second. So where a
container states its end, no other file may begin there; where only the demuxer knows the end, what
follows its last packet is searched. Formats that consist of packets only (MP3, TS, raw H.264, AVI
by its index) may be concatenated, and are converted as a whole.
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
"""Magic bytes of formats whose demuxers stop at the first file's end, which no header states."""
_TAIL_BYTES = 1 << 16


def two_in_one(start: int) -> InputFault:
    """Return the failure of a file in which another one begins at byte `start`."""
    return InputFault(
        f"The source is two files in one: a second one begins at byte {start}, and players show "
        "only one of them. Convert each separately."
    )


def check_end(file: BinaryIO, end: int) -> None:
    """Raise `InputFault` when another file begins at byte `end`, where this one says it ends."""
    file.seek(end)
    if file.read(16).startswith(_BEGINNINGS):
        raise two_in_one(end)


def check_tail(file: BinaryIO, last: int) -> None:
    """Raise `InputFault` when another file begins after byte `last`, the end of the last packet."""
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
