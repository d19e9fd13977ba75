"""Check that what one build of ffmpeg lacks is done by another, and that neither source nor engine is
blamed for it. The bundled static build lacks much: 10 bits in x265, decoders of AV1 and PNG, zlib."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from tests.engine.clips import Clips
from tests.engine.conftest import Run, of_one_ffmpeg
from tests.once import once, run_folder
from tools.zlib_matroska import compressed

from distconv_engine.checks.source import check_source
from distconv_engine.config import Config
from distconv_engine.failures import FfmpegFailed, Incapable, InputFault, Lacking
from distconv_engine.ffmpeg.inputs import file_url
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools, find_tools
from distconv_engine.host.capabilities import Capabilities, VerifiedEncoder, verify_encoders
from distconv_engine.logs import Log
from distconv_engine.media.ffmpeg import Ffmpeg
from distconv_engine.pipeline.encoder_choice import first_that_works

pytestmark = pytest.mark.e2e
FAST = {"preset": "ultrafast"}
MKV = {**FAST, "container": "mkv"}


@pytest.fixture(scope="module")
def bundled() -> Tools:
    return find_tools(None)


@pytest.fixture(scope="module")
def static(bundled: Tools) -> Tools:
    """The static build, as if the setting named it."""
    return find_tools(bundled.ffprobe.replace("ffprobe", "ffmpeg"))


@pytest.fixture(scope="module")
def of_static(static: Tools, tmp_path_factory: pytest.TempPathFactory) -> Capabilities:
    folder = tmp_path_factory.mktemp("trials")

    async def run() -> Capabilities:
        return await verify_encoders(Ffmpeg(static, Controls()), folder, hardware=False)

    return once(run_folder(tmp_path_factory) / "of-static", lambda: trio.run(run))


@pytest.fixture
def film(clips: Clips) -> bytes:
    """A Matroska file with picture, sound and text."""
    return clips.odd("text-subtitles").read_bytes()


@pytest.mark.parametrize("name,codec", [("hdr10", "hevc"), ("av1", "h264"), ("png", "h264")])
async def test_what_the_named_ffmpeg_lacks_the_bundled_one_does_and_the_result_says_so(
    name: str,
    codec: str,
    static: Tools,
    of_static: Capabilities,
    bundled: Tools,
    run_job: Run,
    clips: Clips,
) -> None:
    lavfi = ("-f", "lavfi", "-i", "testsrc2=s=64x64:r=25:d=0.4")
    made = {
        "hdr10": lambda: clips.odd("hdr10"),
        "av1": lambda: clips.make("short-av1.mkv", *lavfi, "-c:v", "libsvtav1", "-preset", "12"),
        "png": lambda: clips.make("short-png.mov", *lavfi, "-c:v", "png"),
    }
    report = await run_job(made[name](), codec, options=FAST, tools=static, capabilities=of_static)
    assert report.result.notes == ["bundled-ffmpeg"]
    assert report.result.ffmpeg_version == bundled.version


async def test_what_the_named_ffmpeg_can_do_it_does(
    static: Tools, of_static: Capabilities, run_job: Run, clips: Clips
) -> None:
    report = await run_job(clips.plain(), options=FAST, tools=static, capabilities=of_static)
    assert (report.result.notes, report.result.ffmpeg_version) == (None, static.version)


async def test_what_one_build_gives_up_without_saying_why_another_build_tries(
    of_static: Capabilities, static: Tools, bundled: Tools
) -> None:
    """As ffmpeg 7.1 does with a cover in PNG: it cannot write the header."""
    rows = of_static.encoders("h264")
    attempt: Any = SimpleNamespace(config=Config(), log=Log())
    tried: list[str] = []

    async def work(row: VerifiedEncoder) -> str:
        await trio.lowlevel.checkpoint()
        tried.append(row.tools.ffmpeg)
        if row.tools.ffmpeg == static.ffmpeg:
            raise FfmpegFailed("ffmpeg failed (exit code 1): Could not write header")
        return "done"

    assert await first_that_works(attempt, rows, work) == ("done", ())
    assert tried[-1] == bundled.ffmpeg
    with pytest.raises(FfmpegFailed):
        await first_that_works(attempt, rows[:1], work)


async def test_what_no_ffmpeg_of_the_engine_can_do_is_not_the_sources_fault(
    static: Tools, of_static: Capabilities, run_job: Run, clips: Clips
) -> None:
    alone = dataclasses.replace(static, spares=())
    own = of_one_ffmpeg(of_static, alone)
    film = clips.make(
        "short-png.mov", "-f", "lavfi", "-i", "testsrc2=s=64x64:r=25:d=0.4", "-c:v", "png"
    )
    with pytest.raises(Lacking, match="no decoder for png"):
        await run_job(film, options=FAST, tools=alone, capabilities=own)


@pytest.mark.parametrize("tracks", [{3}, {1, 2, 3}])
async def test_a_matroska_file_with_compressed_tracks_is_converted_whole(
    tracks: set[int], film: bytes, run_job: Run, tmp_path: Path
) -> None:
    source = tmp_path / "packed.mkv"
    source.write_bytes(compressed(film, tracks))
    result = (await run_job(source, options=MKV)).result
    assert [label.split()[0] for label in result.kept] == ["video", "audio", "subtitle"]
    assert result.video_frames == 50


async def test_a_compressed_track_is_known_as_well_as_an_uncompressed_one(
    film: bytes, tools: Tools, tmp_path: Path
) -> None:
    ffmpeg = Ffmpeg(tools, Controls())
    found = []
    for name, tracks in (("stored", set[int]()), ("packed", {1, 2, 3})):
        path = tmp_path / f"{name}.mkv"
        path.write_bytes(compressed(film, tracks))
        source = await check_source(ffmpeg, path)
        found.append([
            (s.codec, s.pix_fmt, s.fps, s.field_order, s.layout, s.sample_rate, s.has_extradata)
            for s in source.probe.streams
        ] + [(s.count, s.first_s, s.end_s) for s in source.scan.streams.values()])  # fmt: skip
    assert found[0] == found[1]


@pytest.mark.parametrize("track", [1, 2, 3])
async def test_a_packet_that_cannot_be_decompressed_is_the_sources_fault(
    track: int, film: bytes, run_job: Run, tmp_path: Path
) -> None:
    source = tmp_path / "bad.mkv"
    packed = compressed(film, {track})
    marks = [i for i in range(len(packed)) if packed.startswith(b"\x78\x9c", i)]
    place = marks[len(marks) // 2]
    source.write_bytes(packed[:place] + b"\0\0" + packed[place + 2 :])
    with pytest.raises(InputFault, match=r"can be decompressed"):
        await run_job(source, options=MKV)


async def test_without_any_ffmpeg_that_decompresses_the_engine_says_that_it_cannot(
    film: bytes, static: Tools, tmp_path: Path
) -> None:
    source = tmp_path / "packed.mkv"
    source.write_bytes(compressed(film, {1, 2, 3}))
    alone = Ffmpeg(dataclasses.replace(static, spares=()), Controls())
    with pytest.raises(Incapable, match="can decompress the tracks"):
        await alone.probe(file_url(source))
