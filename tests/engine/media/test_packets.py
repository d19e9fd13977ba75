"""The demux pass: every form of ffprobe's table, and what a real one prints."""

from pathlib import Path

import pytest
from tests.engine.clips import Clips

from distconv_engine.failures import EngineFault
from distconv_engine.ffmpeg.inputs import file_url
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.media.ffmpeg import Ffmpeg
from distconv_engine.media.packet_hashes import PacketHashes
from distconv_engine.media.packets import PacketScan, PacketTable

PLAIN = """\
1,-1024,-0.021333,-0.021333,0.021333,190,48,KD_,murmur3:b9
0,0,0.000000,0.000000,0.040000,7518,238,K__,murmur3:bf
1,0,0.000000,0.000000,0.021333,235,7756,K__,murmur3:0c
0,murmur3:09
1,murmur3:19
"""
"""Two streams; the first packet has side data, and so has the first stream in some of the forms."""
FORMS = {
    "8.1": PLAIN.replace("b9", "b9,").replace("09", "09,"),
    "8.1, two side data": PLAIN.replace("b9", "b9,,"),
    "an empty field in front of the hash": PLAIN.replace("KD_,", "KD_,,"),
    "5.1": PLAIN.replace("KD_,", "KD,\n,").replace("K__", "K_").replace("09", "09,\n"),
    "5.1, two side data": PLAIN.replace("KD_,", "KD,\n\n,"),
    "8.1, in a program": PLAIN.replace("0,murmur3:09", "0,murmur3:091,murmur3:19\n0,murmur3:09"),
    "5.1, in a program": PLAIN.replace(
        "0,murmur3:09", "0,murmur3:09\n1,murmur3:19\n\n0,murmur3:09"
    ),
}


def read(text: str) -> tuple[PacketScan, PacketHashes]:
    hashes = PacketHashes()
    table = PacketTable(hashes=hashes)
    for line in text.splitlines():
        table.line(line)
    table.close()
    return table.scan, hashes


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_table_tells_the_same_packets(form: str) -> None:
    assert read(FORMS[form]) == read(PLAIN)


@pytest.mark.parametrize("form", ["KD_,", "KD,\n", "KD,\n\n", "KD_"])
def test_without_hashes_it_does_so_too(form: str) -> None:
    scan, hashes = read(f"1,-9,-0.02,-0.02,0.02,190,48,{form}\n0,0,0.0,0.0,0.04,7518,238,K_\n")
    assert {index: stream.count for index, stream in scan.streams.items()} == {0: 1, 1: 1}
    assert (scan.of(1).hidden, scan.end_byte, hashes.streams) == (1, 7756, {})


def test_the_streams_of_a_program_that_run_together_make_no_stream_of_their_own() -> None:
    together = PLAIN.replace("0,murmur3:09", "012,murmur3:2a\n0,murmur3:09")
    assert read(together) == read(PLAIN)


def test_a_table_that_breaks_off_counts_its_whole_lines() -> None:
    scan, _ = read(PLAIN.splitlines()[0] + "\n0,0,0.000000,0.0")
    assert {index: stream.count for index, stream in scan.streams.items()} == {1: 1}


@pytest.mark.parametrize("line", ["packet|stream_index=0", "x,0,0.0,0.0,0.04,7518,238,K_"])
def test_an_unknown_line_is_the_engines_fault_and_is_named(line: str) -> None:
    with pytest.raises(EngineFault, match="printed an unknown kind of line") as caught:
        read(f"{line}\n{PLAIN}")
    assert line[:10] in caught.value.message


def test_the_times_of_each_stream_are_kept_but_for_hidden_packets() -> None:
    table = PacketTable()
    for time, flags in (("-512", "KD_"), ("0", "K__"), ("1024", "___"), ("512", "___")):
        table.line(f"0,{time},0.0,0.0,0.04,7,0,{flags}")
        table.line("1,N/A,N/A,0.0,0.04,7,0,K__")
    table.close()
    video, audio = table.scan.of(0).times, table.scan.of(1).times
    assert (list(video), video.is_complete) == ([0, 512, 1024], True)
    assert (list(audio), audio.untimed) == ([], 4)


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["mp4-moov-first", "ts", "webm"])
async def test_packets_with_side_data_are_all_hashed(
    kind: str, tools: Tools, clips: Clips, tmp_path: Path
) -> None:
    hashes = PacketHashes()
    scan = await Ffmpeg(tools, Controls()).scan(file_url(clips.container(kind)), hashes=hashes)
    counted = {index: (stream.count, stream.total_bytes) for index, stream in scan.streams.items()}
    assert {index: (s.count, s.total_bytes) for index, s in hashes.streams.items()} == counted
    assert scan.of(0).count == 50
