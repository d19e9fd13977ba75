"""Check containers built from bytes; test_corrupt_sources has files of real muxers."""

import io
import struct
from pathlib import Path

import pytest

from distconv_engine.failures import InputFault
from distconv_engine.media.structure.check import check_structure
from distconv_engine.media.structure.concatenated import check_tail
from distconv_engine.media.structure.facts import Structure
from distconv_engine.media.zero_runs import RUN_BYTES, find_zero_runs


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

AIFF = b"FORM" + struct.pack(">I", 24) + b"AIFF" + b"s" * 20
AU = b".snd" + struct.pack(">II", 24, 30) + bytes(12) + b"\x01" * 34
DV = (b"\x1f\x07\x00\x80" + b"d" * 143_996) * 2
FRAME = b"\xff\xfb\x50\xc0" + b"f" * 204  # MPEG-1, layer III, 64 kbit/s, 44.1 kHz, mono
XING = FRAME[:21] + b"Info" + struct.pack(">III", 3, 9, 9 * 208) + FRAME[37:]
MP3 = b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + XING + FRAME * 8


MXF_KEY = bytes.fromhex("060e2b34020501010d01020101")


def klv(kind: int, body: bytes) -> bytes:
    return MXF_KEY + bytes([kind, 0, 0]) + b"\x83" + len(body).to_bytes(3, "big") + body


MXF = klv(2, b"head") + klv(9, b"e" * 300) + klv(4, b"foot")


def asf(packets: int, *, size: int | None = None, flags: int = 2) -> bytes:
    """Return a header with its file properties, and packets of 100 bytes."""
    stated_index = (
        bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365") + struct.pack("<Q", 104) + bytes(16)
    )
    whole = 30 + 104 + 50 + packets * 100
    stated_index += struct.pack("<QQQ", whole if size is None else size, 0, packets) + bytes(24)
    stated_index += struct.pack("<IIII", flags, 100, 100, 0)
    head = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + struct.pack("<QI", 134, 1) + b"\1\2"
    data = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c") + bytes(34)
    return head + stated_index + data + (b"\x82" + b"p" * 99) * packets


WHOLE = {
    "mp4": MP4, "mkv": MKV, "avi": AVI, "flv": FLV, "ts": TS, "ogg": OGG, "mp4-64-bit": LARGE,
    "aiff": AIFF, "au": AU, "mxf": MXF, "asf": asf(5), "mp3": MP3,
}  # fmt: skip


NESTED = b"".join(
    (b"AVI LIST" if n == 0 else b"listLIST") + struct.pack("<I", 12 * (5000 - n) + 1)
    for n in range(5000)
)
"""Nested lists, deeper than Python's recursion limit."""


def read(content: bytes, tmp_path: Path) -> Structure:
    path = tmp_path / "clip"
    path.write_bytes(content)
    return check_structure(path)


def look(content: bytes, tmp_path: Path) -> bool:
    return read(content, tmp_path).states_length


@pytest.mark.parametrize("kind", list(WHOLE))
def test_a_whole_file_passes(kind: str, tmp_path: Path) -> None:
    assert look(WHOLE[kind], tmp_path)


TRAILERS = {
    "line-feed": b"\r\n",
    "camera": bytes(range(128, 256)) * 9 + b"m" * 32,
    "text": b"This is a note, and ' is ' looks like a box.",
}


@pytest.mark.parametrize("name", list(TRAILERS))
def test_bytes_after_whole_mp4_boxes_are_no_damage(name: str, tmp_path: Path) -> None:
    found = read(MP4 + TRAILERS[name], tmp_path)
    assert found == Structure(trailer_at=len(MP4))


@pytest.mark.parametrize("zeros", [bytes(64), bytes(3), b"\0\0\0\x40mda"])
def test_zeros_or_a_cut_box_after_whole_mp4_boxes_are_damage(zeros: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputFault):
        look(MP4 + zeros, tmp_path)


def wav(riff: int, data: int, audio: bytes) -> bytes:
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    return struct.pack("<4sI", b"RIFF", riff) + head + struct.pack("<4sI", b"data", data) + audio


@pytest.mark.parametrize("riff", [0, 0xFFFFFFFF, 136])
@pytest.mark.parametrize("data", [0, 0xFFFFFFFF])
def test_a_wav_whose_length_was_never_set_states_none(riff: int, data: int, tmp_path: Path) -> None:
    found = read(wav(riff, data, bytes(range(1, 101))), tmp_path)
    assert found == Structure(states_length=False, unset_length=True)


def test_a_wav_with_less_audio_than_it_states_is_cut_whatever_its_outer_length(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputFault, match="its audio reaches to byte 244,"):
        look(wav(0xFFFFFFFF, 200, bytes(range(1, 101))), tmp_path)


def caf(data: int, audio: bytes) -> bytes:
    return (
        b"caff\0\x01\0\0desc"
        + struct.pack(">q", 4)
        + b"lpcm"
        + b"data"
        + struct.pack(">q", data)
        + audio
    )


def test_a_caf_states_the_length_of_its_audio_or_none(tmp_path: Path) -> None:
    assert look(caf(50, b"a" * 50), tmp_path)
    assert read(caf(-1, b"a" * 50), tmp_path).unset_length
    with pytest.raises(InputFault, match="cut"):
        look(caf(51, b"a" * 50), tmp_path)


@pytest.mark.parametrize("name", ["line-feed", "camera"])
def test_bytes_after_the_boxes_of_a_fragmented_or_headless_mp4_are_damage(
    name: str, tmp_path: Path
) -> None:
    headless = box(b"ftyp", b"isom") + box(b"mdat", b"d" * 50)
    for start in (MP4 + box(b"moof", b"") + box(b"mdat", b"d"), headless):
        with pytest.raises(InputFault):
            look(start + TRAILERS[name], tmp_path)


def test_a_second_mp4_after_other_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFault, match=f"begins at byte {len(MP4) + 2},"):
        look(MP4 + b"\r\n" + MP4, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(WHOLE))
def test_a_file_cut_anywhere_after_its_first_bytes_is_refused(kind: str, tmp_path: Path) -> None:
    whole = WHOLE[kind]
    unseen = {
        "ts": range(0, 1880, 188),  # between two packets, which no check can see, as in the others
        "flv": [31],
        "mxf": [24, 344, *range(357, len(MXF))],
        "mp3": [n for n in range(len(MP3)) if n < 20 + 4 * 208 or (n - 20) % 208 < 4],
        "au": range(54, 58),
    }.get(kind, [])
    first = 564 if kind == "ts" else 25 if kind == "au" else 17
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
        (DV[:-1], "last DV frame"),
        (MXF.replace(b"eeee\x06", b"eeee\x07"), "an MXF key should begin"),
        (asf(5)[:284] + bytes(100) + asf(5)[384:], "an ASF packet should begin at byte 284"),
        (asf(5, size=9999), "9999"),
        (XING + FRAME * 60 + FRAME[:50], "last frame"),
        (XING[:25] + struct.pack(">III", 3, 90, 90_000) + XING[37:] + FRAME * 8, "Xing header"),
        (b"RIFF" + struct.pack("<I", 12 * 5000 - 8) + NESTED, "AVI chunk"),
    ],
)
def test_the_message_names_what_is_wrong(content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputFault) as caught:
        look(content, tmp_path)
    assert words in caught.value.message


@pytest.mark.parametrize(
    "content",
    [
        DV,
        asf(5, size=9999, flags=1),
        asf(5).replace(b"\x82p", b"\x00p"),
        AU[:8] + b"\xff" * 4 + AU[12:],
        FRAME * 9 + b"TAG" + bytes(125),
        XING[:4] + FRAME[4:] + FRAME * 8,
        b"\xff\xfb\x00\xc0" + b"f" * 300,
        MXF + b"whatever",
    ],
)
def test_an_odd_but_whole_file_passes(content: bytes, tmp_path: Path) -> None:
    look(content, tmp_path)


@pytest.mark.parametrize(
    "content", [LIVE, LIVE[:-5], b"some\x01bytes, not a video" * 10, MKV + b"tail"]
)
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


def fragment(number: int, begins: int | None, *, duration: int | None = 100) -> bytes:
    """Return a fragment of 5 samples of track 1; the header or `trex` has their duration."""
    header = (
        struct.pack(">II", 0, 1) if duration is None else struct.pack(">III", 0x08, 1, duration)
    )
    time = b"" if begins is None else box(b"tfdt", struct.pack(">II", 0, begins))
    run = box(b"trun", struct.pack(">II", 0, 5))
    number_box = box(b"mfhd", struct.pack(">II", 0, number))
    moof = box(b"moof", number_box + box(b"traf", box(b"tfhd", header) + time + run))
    return moof + box(b"mdat", b"f" * 9)


def mfra(*offsets: int) -> bytes:
    entries = b"".join(struct.pack(">IIBBB", 0, place, 1, 1, 1) for place in offsets)
    return box(b"mfra", box(b"tfra", struct.pack(">IIII", 0, 1, 0, len(offsets)) + entries))


def sidx(*sizes: int) -> bytes:
    entries = b"".join(struct.pack(">III", size, 500, 0) for size in sizes)
    return box(b"sidx", struct.pack(">IIIIIHH", 0, 1, 500, 0, 0, 0, len(sizes)) + entries)


def trak(number: int, timescale: int) -> bytes:
    head = box(b"tkhd", struct.pack(">4xIII", 0, 0, number))
    return box(b"trak", head + box(b"mdia", box(b"mdhd", struct.pack(">4xIII", 0, 0, timescale))))


def mp4_head(*, stated: int = 0, default: int = 0) -> bytes:
    """Return a header of track 1, 500 units a second; `stated` is the total duration in ms."""
    mehd = box(b"mehd", struct.pack(">II", 0, stated)) if stated else b""
    trex = box(b"trex", struct.pack(">IIIIII", 0, 1, 1, default, 0, 0))
    moov = box(b"mvhd", struct.pack(">4xIII", 0, 0, 1000)) + trak(1, 500)
    return box(b"ftyp", b"isom\0\0\0\0") + box(b"moov", moov + box(b"mvex", mehd + trex))


MP4_HEAD = mp4_head()


@pytest.mark.parametrize(
    "fragments",
    [
        [(1, 0), (2, 500), (3, 1000)],
        [(7, 70), (8, 570)],
        [(1, 0), (1, 500), (1, 1000)],
        [(1, 0), (5, 500), (9, 1000)],
        [(1, 0), (2, 700), (3, 9000)],
        [(0, 0), (0, 0), (0, 0)],
        [(1, 0), (5, 540), (9, 1000)],
        [(1, None), (3, None)],
    ],
    ids=[
        "in order",
        "from any number",
        "without numbers",
        "gaps of numbers only",
        "gaps of time only",
        "neither numbers nor times",
        "rounded",
        "without times",
    ],
)
def test_fragments_pass_unless_one_is_known_to_be_missing(
    fragments: list[tuple[int, int | None]], tmp_path: Path
) -> None:
    content = MP4_HEAD + b"".join(fragment(*each) for each in fragments)
    assert look(content, tmp_path)


@pytest.mark.parametrize("duration", [100, None], ids=["own durations", "the track's"])
@pytest.mark.parametrize(
    "fragments",
    [
        [(1, 0), (3, 1000)],
        [(1, 0), (3, 1000), (2, 500), (4, 1500)],
        [(1, 0), (2, 500), (2, 500), (3, 1000)],
        [(1, 0), (2, 500), (4, 1100)],
    ],
    ids=["one missing", "two swapped", "one twice", "after a gap"],
)
def test_a_fragment_missing_by_both_its_number_and_its_time_is_found(
    fragments: list[tuple[int, int]], duration: int | None, tmp_path: Path
) -> None:
    pieces = [fragment(*each, duration=duration) for each in fragments]
    with pytest.raises(InputFault, match="a fragment is missing"):
        look(mp4_head(default=100) + b"".join(pieces), tmp_path)


def test_an_index_in_front_of_fragments_reveals_a_cut_on_their_border(tmp_path: Path) -> None:
    pieces = [fragment(1, 0), fragment(2, 500)]
    index = sidx(*map(len, pieces))
    assert look(MP4_HEAD + index + b"".join(pieces), tmp_path)
    with pytest.raises(InputFault, match=r"what its index \(sidx\) lists reaches to byte"):
        look(MP4_HEAD + index + pieces[0], tmp_path)


def test_a_stated_duration_of_all_fragments_reveals_a_cut(tmp_path: Path) -> None:
    head, pieces = mp4_head(stated=2000), [fragment(1, 0), fragment(2, 500)]
    assert look(head + b"".join(pieces), tmp_path)
    with pytest.raises(InputFault, match=r"says 2\.00 s, its fragments end at 1\.00 s"):
        look(head + pieces[0], tmp_path)


def test_an_index_at_the_end_reveals_missing_bytes_in_the_middle(tmp_path: Path) -> None:
    start, piece = len(MP4_HEAD), fragment(0, None)
    second, third = start + len(piece), start + 2 * len(piece)
    index = mfra(start, second, third)
    assert look(MP4_HEAD + piece * 3 + index, tmp_path)
    with pytest.raises(InputFault, match=f"has a fragment at byte {third}, but none begins"):
        look(MP4_HEAD + piece * 2 + index, tmp_path)
    # All places wrong: the writer counted from another position.
    assert look(MP4_HEAD + piece * 2 + mfra(start + 1, second + 1), tmp_path)


def test_two_mp4_files_in_one_are_refused(tmp_path: Path) -> None:
    fragmented = MP4_HEAD + fragment(1, 0) + fragment(2, 500)
    indexed = MP4_HEAD + fragment(0, None) + mfra(len(MP4_HEAD))
    for first, second in [(MP4, MP4), (fragmented, fragmented), (indexed, indexed)]:
        with pytest.raises(InputFault, match=f"a second one begins at byte {len(first)}"):
            look(first + second, tmp_path)
    with pytest.raises(InputFault, match="a second one"):
        look(fragmented + MP4, tmp_path)


def test_a_recording_may_repeat_its_header_between_fragments(tmp_path: Path) -> None:
    content = MP4_HEAD + fragment(1, 0) + MP4_HEAD + fragment(2, 500)
    assert look(content, tmp_path)


# --------------------------------------------------------------------------------- concatenated

WAV = b"RIFF" + struct.pack("<I", 4 + 8 + 20) + b"WAVE" + chunk(b"data", b"s" * 20)
SIZED_FLV = flv(b"filesize\0" + struct.pack(">d", 45.0))
STATED = {"wav": WAV, "mkv": MKV, "flv": SIZED_FLV, "asf": asf(5), "aiff": AIFF, "au": AU[:54]}


@pytest.mark.parametrize("kind", list(STATED))
def test_a_second_file_at_the_stated_end_of_the_first_is_found(kind: str, tmp_path: Path) -> None:
    whole = STATED[kind]
    assert look(whole, tmp_path)
    with pytest.raises(
        InputFault, match=f"two files in one: a second one begins at byte {len(whole)}"
    ):
        look(whole + whole, tmp_path)


def test_a_second_file_after_the_last_packet_is_found() -> None:
    whole = b"caff" + bytes(60)
    check_tail(io.BytesIO(whole + b"tags" * 9), 50)
    check_tail(io.BytesIO(b"fLaC" + whole * 2), 50)
    with pytest.raises(InputFault, match="a second one begins at byte 64"):
        check_tail(io.BytesIO(whole + whole), 50)
    with pytest.raises(InputFault, match="a second one begins at byte 64"):
        check_tail(io.BytesIO(whole + whole), 0)
