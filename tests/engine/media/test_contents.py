"""Test that one run of ffprobe finds what two find, and that it gives up where it is not sure."""

from collections.abc import Callable

import pytest
from tests.engine.clips import Clips

from distconv_engine.ffmpeg.inputs import file_url
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.media.contents import Contents, ContentsReader
from distconv_engine.media.ffmpeg import Ffmpeg
from distconv_engine.media.packet_hashes import PacketHashes

JSON = """\
{
    "packets": [
        { "stream_index": 1, "pts_time": "-0.021333", "size": "190", "pos": "48", "flags": "KD_", "data_hash": "murmur3:b9",
            "side_data_list": [
                {  }
            ] },
        { "stream_index": 0, "pts_time": "0.000000", "dts_time": "0.000000", "duration_time": "0.040000", "size": "7518", "pos": "238", "flags": "K__", "data_hash": "murmur3:bf" }
    ],
    "streams": [
        { "index": 0, "codec_name": "h264", "codec_type": "video", "extradata_hash": "murmur3:09",
            "tags": { "title": "],", "language": "deu" } },
        { "index": 1, "codec_name": "aac", "codec_type": "audio" }
    ],
    "chapters": [

    ],
    "format": { "format_name": "mov,mp4", "duration": "0.040000" }
}
"""


def read(text: str) -> Contents | None:
    reader = ContentsReader()
    for line in text.splitlines():
        reader.line(line)
    return reader.maybe_contents()


def test_packets_streams_and_hashes_are_read() -> None:
    contents = read(JSON)
    assert contents is not None
    probe, scan, hashes = contents
    assert (probe.format, [stream.codec for stream in probe.streams]) == (
        "mov,mp4",
        ["h264", "aac"],
    )
    assert (scan.of(0).count, scan.of(0).end_s, scan.end_byte) == (1, 0.04, 7756)
    assert (scan.of(1).count, scan.of(1).hidden) == (1, 1)
    assert (hashes.of(0).count, hashes.of(0).total_bytes, hashes.of(0).extradata) == (1, 7518, "09")
    assert (hashes.of(1).count, hashes.of(1).total_bytes, hashes.of(1).extradata) == (1, 190, "")


FAULTS: dict[str, Callable[[str], str]] = {
    "it breaks off among the packets": lambda text: text[: text.index('"pts_time": "0.0')],
    "it breaks off behind the packets": lambda text: text[: text.index('"chapters"')],
    "there is no packet": lambda text: text[: text.index("{ ")] + text[text.index("    ],") :],
    "there is no format": lambda text: text.replace("mov,mp4", ""),
    "a packet has no size": lambda text: text.replace('"size": "7518", ', ""),
    "a packet has no end": lambda text: text.replace('"murmur3:bf" }', f'"{"x" * 70_000}'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_as_expected_gives_no_contents(fault: str) -> None:
    assert read(FAULTS[fault](JSON)) is None


def test_a_description_without_end_is_not_kept() -> None:
    reader = ContentsReader()
    for _ in range(300):
        reader.line("x" * 100_000)
    assert reader.maybe_contents() is None
    assert reader.description_size <= 16_000_000


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["mp4-moov-first", "mkv", "ts", "webm", "avi"])
async def test_one_run_finds_what_two_find(kind: str, tools: Tools, clips: Clips) -> None:
    ffmpeg, url = Ffmpeg(tools, Controls()), file_url(clips.container(kind))
    contents, hashes = await ffmpeg.maybe_contents(url, with_hashes=True), PacketHashes()
    assert contents is not None
    assert contents.probe == await ffmpeg.probe(url)
    scan = await ffmpeg.scan(url, hashes=hashes)
    assert (contents.scan.streams, contents.scan.end_byte) == (scan.streams, scan.end_byte)
    assert contents.hashes == hashes


@pytest.mark.e2e
async def test_a_file_that_ffprobe_complains_of_has_no_contents(tools: Tools, clips: Clips) -> None:
    cut = clips.container("webm")
    damaged = cut.with_name("damaged.webm")
    damaged.write_bytes(cut.read_bytes()[:-100])
    assert await Ffmpeg(tools, Controls()).maybe_contents(file_url(damaged)) is None
