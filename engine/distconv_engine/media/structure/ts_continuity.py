"""Check that no packet of a transport stream is missing, by the counters in each of them.

A multiplexer that states wrong lengths of its PES packets makes ffmpeg flag each of them as corrupt.
Whether bytes are missing is seen here: each stream's packets are counted from 0 to 15, in turns.
"""

from typing import BinaryIO

_PACKET = 188
_READ_PACKETS = 4096
_SYNC = 0x47
_NULL_PID = 0x1FFF


def is_continuous(file: BinaryIO, size: int) -> bool:
    """Whether every packet is there, none has an error flagged, and each begins with its sync byte."""
    last: dict[int, int] = {}
    file.seek(0)
    for _ in range(size // (_PACKET * _READ_PACKETS) + 1):
        block = file.read(_PACKET * _READ_PACKETS)
        for at in range(0, len(block) - _PACKET + 1, _PACKET):
            if not _follows(block[at : at + 6], last):
                return False
    return True


def _follows(head: bytes, last: dict[int, int]) -> bool:
    """Whether a packet that begins with `head` follows what came last of its stream."""
    if head[0] != _SYNC or head[1] & 0x80:
        return False
    pid = (head[1] & 0x1F) << 8 | head[2]
    has_payload, has_adaptation, counter = head[3] & 0x10, head[3] & 0x20, head[3] & 0x0F
    if pid == _NULL_PID or not has_payload:
        return True
    may_jump = bool(has_adaptation and head[4] and head[5] & 0x80)
    before = last.get(pid)
    last[pid] = counter
    # A packet may be sent twice, with the same counter.
    return may_jump or before is None or counter in (before, (before + 1) % 16)
