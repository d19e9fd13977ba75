"""Corrupt a file in many ways; each function returns the corrupted bytes."""

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

from distconv_engine.ffmpeg.tools import Tools

BLOCK = 4096


def cut(percent: int) -> Callable[[bytes], bytes]:
    return lambda whole: whole[: len(whole) * percent // 100]


def zero_block(whole: bytes) -> bytes:
    middle = len(whole) // 2
    return whole[:middle] + bytes(BLOCK) + whole[middle + BLOCK :]


def scramble_block(whole: bytes) -> bytes:
    middle = len(whole) // 2
    return whole[:middle] + random.Random(1).randbytes(BLOCK) + whole[middle + BLOCK :]


def zero_tail(whole: bytes) -> bytes:
    """Return what a preallocated download leaves that was never finished."""
    kept = len(whole) * 60 // 100
    return whole[:kept] + bytes(len(whole) - kept)


CORRUPTIONS: dict[str, Callable[[bytes], bytes]] = {
    "cut-5": cut(5),
    "cut-25": cut(25),
    "cut-60": cut(60),
    "cut-95": cut(95),
    "cut-99": cut(99),
    "zeroed-block": zero_block,
    "scrambled-block": scramble_block,
    "zero-tail": zero_tail,
    "header-only": lambda whole: whole[:64],
    "empty": lambda whole: b"",
    "text": lambda whole: b"This is not a film.\n" * 50,
    "zeros": lambda whole: bytes(len(whole)),
}


# ----------------------------------------------------------------------------- at a known place


def packet_places(tools: Tools, path: Path, kind: str) -> list[tuple[int, int]]:
    """Return place and size of the packets of the first stream of `kind`, `v` or `a`."""
    argv = [tools.ffprobe, "-v", "error", "-select_streams", f"{kind}:0"]
    argv += ["-show_entries", "packet=pos,size", "-of", "csv=p=0", str(path)]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    found = [line.split(",")[:2] for line in lines]
    return [(int(place), int(size)) for size, place in found if place.isdigit()]


def _overwritten(whole: bytes, place: int, size: int) -> bytes:
    return whole[:place] + random.Random(2).randbytes(size) + whole[place + size :]


def _fragments(whole: bytes) -> list[tuple[int, int]]:
    """Return start and end of each `moof` with the `mdat` after it."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(whole):
        end = at + int.from_bytes(whole[at : at + 4], "big")
        if whole[at + 4 : at + 8] == b"moof":
            found.append((at, end + int.from_bytes(whole[end : end + 4], "big")))
        at = end
    return found


def _corrupt_fragments(whole: bytes, how: str) -> bytes:
    fragments = _fragments(whole)
    (start, middle), (_, end) = fragments[1:3]
    if how == "lost fragment":
        return whole[:start] + whole[middle:]
    if how == "lost end":
        return whole[: fragments[-1][0]]
    return whole[:start] + whole[middle:end] + whole[start:middle] + whole[end:]


def corrupt_for_format(tools: Tools, path: Path, how: str) -> bytes:
    """Return `path` corrupted by one of `CORRUPTIONS`, or at a place found from its packets."""
    whole = path.read_bytes()
    middle = len(whole) // 2
    if how == "nothing":
        return whole
    if how == "concatenated":
        return whole + whole
    if how in ("lost fragment", "lost end", "swapped fragments"):
        return _corrupt_fragments(whole, how)
    if how == "hole":
        return whole[:middle] + whole[middle + 1000 :]
    if how == "flipped bit":
        return whole[:middle] + bytes([whole[middle] ^ 0x10]) + whole[middle + 1 :]
    if how == "last picture":
        place, size = packet_places(tools, path, "v")[-1]
        skipped = min(40, size // 3)
        return _overwritten(whole, place + skipped, min(size - skipped, 400))
    if how == "sound":
        packets = packet_places(tools, path, "a")
        place, size = packets[len(packets) // 2]
        return _overwritten(whole, place + size // 3, min(size // 2, 200))
    return CORRUPTIONS[how](whole)
