"""Ways to spoil a file; each gives the spoiled bytes."""

import random
from collections.abc import Callable

BLOCK = 4096


def cut(percent: int) -> Callable[[bytes], bytes]:
    return lambda whole: whole[: len(whole) * percent // 100]


def zeroed(whole: bytes) -> bytes:
    middle = len(whole) // 2
    return whole[:middle] + bytes(BLOCK) + whole[middle + BLOCK :]


def scrambled(whole: bytes) -> bytes:
    middle = len(whole) // 2
    return whole[:middle] + random.Random(1).randbytes(BLOCK) + whole[middle + BLOCK :]


def zero_tail(whole: bytes) -> bytes:
    """A download that was preallocated and never finished."""
    kept = len(whole) * 60 // 100
    return whole[:kept] + bytes(len(whole) - kept)


SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "cut-5": cut(5),
    "cut-25": cut(25),
    "cut-60": cut(60),
    "cut-95": cut(95),
    "cut-99": cut(99),
    "zeroed-block": zeroed,
    "scrambled-block": scrambled,
    "zero-tail": zero_tail,
    "header-only": lambda whole: whole[:64],
    "empty": lambda whole: b"",
    "text": lambda whole: b"This is not a film.\n" * 50,
    "zeros": lambda whole: bytes(len(whole)),
}
