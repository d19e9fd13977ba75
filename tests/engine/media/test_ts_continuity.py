"""Whether a packet of a transport stream is missing shows in the counters. No ffmpeg."""

import io

import pytest

from distconv_engine.media.structure.ts_continuity import is_continuous


def packet(counter: int, pid: int = 0x100, flags: int = 0x10, head: bytes = b"") -> bytes:
    start = bytes([0x47, pid >> 8, pid & 0xFF, flags | counter % 16])
    return (start + head).ljust(188, b"a")


WHOLE = [packet(number) for number in range(40)]


def check(packets: list[bytes]) -> bool:
    content = b"".join(packets)
    return is_continuous(io.BytesIO(content), len(content))


def test_a_stream_whose_counters_are_in_turns_is_whole() -> None:
    others = [packet(7 * number, 0x1FFF) for number in range(3)]
    assert check([*WHOLE[:9], *others, packet(3, 0x101), *WHOLE[9:], packet(4, 0x101)])


def test_a_packet_may_be_sent_twice_or_carry_no_payload() -> None:
    assert check([*WHOLE[:5], WHOLE[4], packet(4, flags=0x20, head=b"\x01\0"), *WHOLE[5:]])


def test_a_counter_may_jump_where_the_stream_says_so() -> None:
    assert check([*WHOLE[:5], packet(11, flags=0x30, head=b"\x01\x80")])


@pytest.mark.parametrize("number", [1, 20, 38])
def test_any_packet_that_is_missing_is_found(number: int) -> None:
    assert not check(WHOLE[:number] + WHOLE[number + 1 :])


def test_a_packet_with_an_error_or_without_its_sync_byte_is_found() -> None:
    flagged = bytes([0x47, 0x81]) + WHOLE[5][2:]
    assert not check([*WHOLE[:5], flagged, *WHOLE[6:]])
    assert not check([*WHOLE[:5], b"\0" + WHOLE[5][1:], *WHOLE[6:]])
