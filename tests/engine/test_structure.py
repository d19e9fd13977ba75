"""Container checks on bytes made by hand; the real containers are in test_corrupt_sources."""

import struct
from pathlib import Path

import pytest

from distconv_engine.failures import InputFault
from distconv_engine.structure import check_structure
from distconv_engine.zeros import RUN_BYTES, find_zero_runs


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def flv(*bodies: bytes) -> bytes:
    tags = b"".join(
        b"\x09" + len(body).to_bytes(3, "big") + bytes(7) + body
        + (len(body) + 11).to_bytes(4, "big")
        for body in bodies
    )  # fmt: skip
    return b"FLV\x01\x05\0\0\0\x09" + bytes(4) + tags


def ogg(flags: int, body: bytes) -> bytes:
    return b"OggS\0" + bytes([flags]) + bytes(20) + b"\x01" + bytes([len(body)]) + body


MP4 = box(b"ftyp", b"isom") + box(b"moov", b"m" * 20) + box(b"mdat", b"d" * 50)
MKV = b"\x1a\x45\xdf\xa3\x84abcd\x18\x53\x80\x67\x01\0\0\0\0\0\0\x14" + b"c" * 20
LIVE = b"\x1a\x45\xdf\xa3\x84abcd\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff" + b"c" * 20
AVI = b"RIFF" + struct.pack("<I", 4 + 12 + 13 + 1) + b"AVI " + chunk(
    b"LIST", b"movi" + chunk(b"00dc", b"abcde")
)  # fmt: skip
FLV = flv(b"one", b"three")
TS = (b"\x47" + b"p" * 187) * 10
OGG = ogg(2, b"head") + ogg(4, b"tail")
LARGE = box(b"ftyp", b"isom") + box(b"moov", b"") + struct.pack(">I4sQ", 1, b"mdat", 26) + b"d" * 10

WHOLE = {
    "mp4": MP4, "mkv": MKV, "avi": AVI, "flv": FLV, "ts": TS, "ogg": OGG, "mp4-64-bit": LARGE,
}  # fmt: skip


def look(content: bytes, tmp_path: Path) -> list[str]:
    path = tmp_path / "clip"
    path.write_bytes(content)
    return check_structure(path)


@pytest.mark.parametrize("kind", list(WHOLE))
def test_a_whole_file_passes(kind: str, tmp_path: Path) -> None:
    assert look(WHOLE[kind], tmp_path) == ["container-complete"]


@pytest.mark.parametrize("kind", list(WHOLE))
def test_a_file_cut_anywhere_after_its_first_bytes_is_refused(kind: str, tmp_path: Path) -> None:
    whole = WHOLE[kind]
    unseen = {"ts": range(0, 1880, 188), "flv": [31]}.get(kind, [])  # on a border: see the module
    first = 564 if kind == "ts" else 13
    for length in set(range(first, len(whole))) - set(unseen):
        with pytest.raises(InputFault):
            look(whole[:length], tmp_path)


@pytest.mark.parametrize(
    "content,words",
    [
        (b"", "empty"),
        (bytes(5000), "zero bytes"),
        (box(b"ftyp", b"isom") + box(b"mdat", b"d" * 50), "moov"),
        (box(b"ftyp", b"isom") + box(b"moov", b"m" * 50), "only a header"),
        (MP4 + bytes(40), "damaged"),
        (AVI.replace(b"00dc", b"\0\0\0\0"), "damaged"),
        (OGG[:-1], "Ogg"),
        (flv(b"filesize\0" + struct.pack(">d", 9999.0)), "9999"),
        (ogg(2, b"head") + ogg(0, b"tail"), "does not end"),
    ],
)
def test_what_is_wrong_is_told(content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputFault) as caught:
        look(content, tmp_path)
    assert words in caught.value.message


@pytest.mark.parametrize("content", [LIVE, LIVE[:-5], b"some text, as it were" * 10, MKV + b"tail"])
def test_a_file_that_states_no_length_is_left_to_the_other_checks(
    content: bytes, tmp_path: Path
) -> None:
    look(content, tmp_path)


# ---------------------------------------------------------------------------------- zero runs


@pytest.mark.parametrize("start", [0, 1, 5000, (1 << 20) - 700, (1 << 20) - 1, 1 << 20])
@pytest.mark.parametrize("length", [RUN_BYTES, 2000, (1 << 20) + 300])
def test_a_run_of_zeros_is_found_wherever_it_lies(start: int, length: int, tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes(b"x" * start + bytes(length) + b"x" * 5000)
    runs = find_zero_runs(path)
    assert runs.touch(start, length)
    assert not runs.touch(start + length, 5000)
    if start:
        assert not runs.touch(0, start)


def test_short_runs_are_left_to_the_decoders(tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes((b"x" + bytes(RUN_BYTES - 1)) * 100)
    assert not find_zero_runs(path)


def test_a_run_at_the_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes(b"x" * 10 + bytes(900))
    assert find_zero_runs(path).touch(0, 910)
