"""Run jobs through the real pipeline, with a real ffmpeg."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from tests.engine.clips import Clips
from tests.engine.conftest import Run, probe_streams

from distconv_engine.attempts.progress_tracker import Tracker
from distconv_engine.failures import (
    EngineFault,
    InputFault,
    JobFailure,
    TransientFault,
    VerificationFault,
)
from distconv_engine.ffmpeg.child import ChildLimits
from distconv_engine.ffmpeg.inputs import file_url
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.host.capabilities import Capabilities
from distconv_engine.media.ffmpeg import Ffmpeg

pytestmark = pytest.mark.e2e
FAST = {"preset": "ultrafast"}


def path_of(report: Any) -> Path:
    return Path(report.output_url.removeprefix("file://"))


@pytest.mark.parametrize(
    "codec,streams",
    [
        ("h264", ["h264,video", "aac,audio"]),
        ("h265", ["hevc,video", "aac,audio"]),
        ("vp8", ["vp8,video", "opus,audio"]),
        ("vp9", ["vp9,video", "opus,audio"]),
        ("libsvtav1", ["av1,video", "aac,audio"]),
    ],
)
async def test_each_codec_is_encoded_verified_and_published(
    codec: str,
    streams: list[str],
    run_job: Run,
    clips: Clips,
    tools: Tools,
    capabilities: Capabilities,
    tmp_path: Path,
) -> None:
    source = clips.plain()
    before = (source.stat().st_mtime_ns, source.read_bytes())
    tracker = Tracker()
    report = await run_job(source, codec, tracker=tracker)
    result, published = report.result, path_of(report)
    assert probe_streams(tools, published) == streams
    assert published.parent == tmp_path / "out"
    assert published.read_bytes().__len__() == result.size_bytes
    assert hashlib.sha256(published.read_bytes()).hexdigest() == result.sha256
    assert (result.width, result.height, result.video_frames) == (160, 90, 25)
    assert (result.video_codec, result.engine_id) == (streams[0].partition(",")[0], "e1")
    assert abs(result.duration_s - 1.0) < 0.1
    assert result.source_size_bytes == len(before[1])
    decodes = "decodes" if result.video_codec in capabilities.readers else "parses"
    assert {"frames", "durations", "container-complete", decodes} <= set(result.checks)
    assert (source.stat().st_mtime_ns, source.read_bytes()) == before
    assert (tracker.now.phase, tracker.now.fraction) == ("report", 1.0)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [published.name]


@pytest.mark.parametrize(
    "codec,options,width,frames",
    [
        ("h264", {"max_width": 80, "crf": 35, "tune": "animation", **FAST}, 80, 25),
        ("h264", {"max_fps": 10, "container": "mkv", **FAST}, 160, 10),
        ("h264", {"two_pass": True, "video_bitrate_kbps": 200, **FAST}, 160, 25),
        ("hevc", {"two_pass": True, "video_bitrate_kbps": 200, **FAST}, 160, 25),
        ("vp9", {"two_pass": True, "video_bitrate_kbps": 200, "preset": "8"}, 160, 25),
        ("h264", {"container": "ts", **FAST}, 160, 25),
        ("hevc", {"container": "mov", **FAST}, 160, 25),
        ("av1", {"container": "webm", "preset": "12"}, 160, 25),
        ("h264", {"audio_codec": "opus", "audio_bitrate_kbps": 48, **FAST}, 160, 25),
    ],
)
async def test_options_are_applied_and_verified(
    codec: str, options: dict[str, Any], width: int, frames: int, run_job: Run, clips: Clips
) -> None:
    report = await run_job(clips.plain(), codec, options=options)
    assert report.result.width == width
    assert report.result.video_frames == frames
    if "container" in options:
        assert path_of(report).suffix == "." + options["container"]


async def test_too_little_memory_on_the_engine_is_not_an_input_failure(
    run_job: Run, clips: Clips
) -> None:
    controls = Controls(ChildLimits(memory_mb=60))
    with pytest.raises(EngineFault, match="more memory than memory_limit_mb"):
        await run_job(clips.plain(), "h264", controls=controls)


@pytest.mark.parametrize("name,sound", [("song.mp3", "libmp3lame"), ("song.m4a", "aac")])
async def test_a_song_keeps_its_cover_in_png(
    name: str, sound: str, run_job: Run, clips: Clips
) -> None:
    picture = clips.make("cover.png", "-f", "lavfi", "-i", "testsrc2=s=64x64", "-frames:v", "1")
    tracks = f"-map 0 -map 1 -c:a {sound} -c:v copy -disposition:v:0 attached_pic"
    song = clips.make(name, "-f", "lavfi", "-i", "sine=d=1", "-i", str(picture), *tracks.split())
    assert "cover #1 (png) copied" in (await run_job(song)).result.kept


async def test_a_video_of_pngs_is_encoded(run_job: Run, clips: Clips) -> None:
    film = clips.make("png.mov", "-f", "lavfi", "-i", "testsrc2=s=64x64:r=25:d=1", "-c:v", "png")
    assert (await run_job(film, options=FAST)).result.video_frames == 25


async def test_a_film_of_one_frame_keeps_its_frame_at_a_lower_rate(
    run_job: Run, clips: Clips
) -> None:
    report = await run_job(clips.odd("one-frame"), "h264", options={"max_fps": 10, **FAST})
    assert report.result.video_frames == 1


async def test_a_bit_rate_that_two_passes_cannot_reach_is_an_input_failure(
    run_job: Run, clips: Clips
) -> None:
    options = {"two_pass": True, "video_bitrate_kbps": 1, **FAST}
    with pytest.raises(InputFault, match=r"video_bitrate_kbps' is too low.* minimum is \d+ kbps"):
        await run_job(clips.plain(), "h264", options=options)


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "av1"])
async def test_hdr_keeps_its_tags_and_ten_bits_or_is_refused_by_an_8_bit_encoder(
    codec: str, run_job: Run, clips: Clips, tools: Tools, capabilities: Capabilities
) -> None:
    preset = {"hevc": "ultrafast", "vp9": "8", "av1": "12", "h264": "ultrafast"}[codec]
    if not any(row.encoder.ten_bit for row in capabilities.encoders(codec)):
        with pytest.raises(EngineFault) as caught:
            await run_job(clips.odd("hdr10"), codec, options={"preset": preset})
        assert "8 bits" in caught.value.message
        return
    report = await run_job(clips.odd("hdr10"), codec, options={"preset": preset})
    found = await Ffmpeg(tools, Controls()).probe(file_url(path_of(report)))
    assert found.main_video is not None
    assert found.main_video.colour.transfer == "smpte2084"
    assert found.main_video.colour.primaries == "bt2020"
    assert found.main_video.bit_depth == 10


async def test_languages_chapters_and_subtitles_are_kept(
    run_job: Run, clips: Clips, tools: Tools
) -> None:
    report = await run_job(clips.odd("several-audio"), "h264", options=FAST)
    found = await Ffmpeg(tools, Controls()).probe(file_url(path_of(report)))
    languages = [stream.language for stream in found.of_kind("audio")]
    assert [language and language[:2] for language in languages] == ["en", "de"]
    report = await run_job(clips.odd("text-subtitles"), "h264", options=FAST, job_id="1_2")
    found = await Ffmpeg(tools, Controls()).probe(file_url(path_of(report)))
    assert [stream.codec for stream in found.of_kind("subtitle")] == ["mov_text"]
    report = await run_job(clips.odd("chapters"), "vp9", options={"preset": "8"}, job_id="1_3")
    assert (await Ffmpeg(tools, Controls()).probe(file_url(path_of(report)))).chapters == 2
    assert "chapters" in report.result.kept


async def test_an_unsupported_stream_is_refused_by_name_or_dropped_and_reported(
    run_job: Run, clips: Clips
) -> None:
    options = {"container": "ts", **FAST}
    with pytest.raises(InputFault) as caught:
        await run_job(clips.odd("text-subtitles"), "h264", options=options)
    assert "subtitle #2 (subrip, fre)" in caught.value.message
    options["on_unsupported"] = "drop"
    report = await run_job(clips.odd("text-subtitles"), "h264", options=options)
    assert report.result.dropped == ["subtitle #2 (subrip, fre)"]
    assert report.result.kept == ["video #0 (h264) to h264", "audio #1 (aac) copied"]


# --------------------------------------------------------------------------------- hostile sources


@pytest.mark.parametrize(
    "name", ["-x.mp4", "%d.mp4", "concat:a|b.mp4", "a b'\"$(id).mp4", "ü\n.mp4", "pipe:0"]
)
async def test_a_hostile_file_name_is_only_a_name(
    name: str, run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    source = tmp_path / name
    source.write_bytes(clips.plain().read_bytes())
    report = await run_job(source, "h264", options=FAST)
    assert report.result.video_frames == 25


@pytest.mark.parametrize(
    "name,text",
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile '{secret}'\n"),
        ("list.mpd", "<?xml version='1.0'?><MPD><Period><BaseURL>{secret}</BaseURL></Period></MPD>"),
        ("list.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"),
        ("clip.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n"),
        ("list.m3u", "file://{secret}\n"),
    ],
)  # fmt: skip
async def test_a_playlist_never_leads_to_another_file(
    name: str, text: str, run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    source = tmp_path / name
    source.write_text(text.format(secret=clips.plain()))
    with pytest.raises(InputFault):
        await run_job(source, "h264")
    assert not (tmp_path / "out").exists()


async def test_a_source_and_a_folder_whose_names_are_not_utf_8_are_accepted(
    run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.mkv"))
    shutil.copyfile(clips.plain(), source)
    output = {"url": f"{tmp_path.as_uri()}/out%FE/"}
    report = await run_job(source, "h264", options=FAST, output=output)
    assert report.output_url == f"{tmp_path.as_uri()}/out%FE/bad%EF%BF%BD.mp4"
    assert msgspec.json.encode(report)


@pytest.mark.parametrize(
    "url,kind",
    [
        ("ftp://h/a.mp4", InputFault),
        ("concat:/etc/passwd", InputFault),
        ("pipe:0", InputFault),
        ("data:video/mp4,xyz", InputFault),
        ("-i", InputFault),
        ("file:///etc/passwd", EngineFault),
    ],
)
async def test_a_source_url_with_another_scheme_is_refused(
    url: str, kind: type[JobFailure], run_job: Run
) -> None:
    with pytest.raises(kind):
        await run_job(url, "h264")


# ---------------------------------------------------------------------------------------- failures


async def test_a_damaged_output_is_a_verification_failure_and_is_not_published(
    run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    class Meddler(Tracker):
        def phase(self, name: str) -> None:
            super().phase(name)
            if name == "verify":
                (output,) = (tmp_path / "work").rglob("output.mp4")
                whole = output.read_bytes()
                middle = whole.index(b"mdat") + 3000
                output.write_bytes(whole[:middle] + bytes(2000) + whole[middle + 2000 :])

    with pytest.raises(VerificationFault):
        await run_job(clips.plain(), "h264", options=FAST, tracker=Meddler())
    assert not (tmp_path / "out").exists()


async def test_too_little_disk_space_is_a_transient_failure(run_job: Run, clips: Clips) -> None:
    with pytest.raises(TransientFault) as caught:
        await run_job(clips.plain(), "h264", disk_reserve_mb=1e9)
    assert "MB free" in caught.value.message


async def test_a_wrong_digest_is_an_input_failure(run_job: Run, clips: Clips) -> None:
    with pytest.raises(InputFault):
        await run_job(clips.plain(), "h264", source_sha256="0" * 64)
    good = hashlib.sha256(clips.plain().read_bytes()).hexdigest()
    await run_job(clips.plain(), "h264", options=FAST, source_sha256=good)


async def test_an_unknown_codec_is_an_input_failure(run_job: Run, clips: Clips) -> None:
    with pytest.raises(InputFault):
        await run_job(clips.plain(), "betamax")


async def test_a_cancelled_attempt_leaves_no_process(run_job: Run, clips: Clips) -> None:
    controls, tracker = Controls(), Tracker()
    with trio.move_on_after(30) as scope:

        class Watcher(Tracker):
            def part(self, part: float) -> None:
                super().part(part)

            def encoding(self, *arguments: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
                super().encoding(*arguments)
                scope.cancel()

        tracker = Watcher()
        await run_job(clips.long(), "hevc", controls=controls, tracker=tracker)
    assert scope.cancelled_caught
    assert not controls.children


@pytest.mark.parametrize("kind, options", [("wav", {"container": "mov"}), ("tta", {})])
async def test_audio_alone_is_copied_or_encoded_whatever_its_packets_and_layout(
    kind: str, options: dict[str, Any], run_job: Run, clips: Clips
) -> None:
    source = clips.make(f"tone.{kind}", "-f", "lavfi", "-i", "sine=d=2")
    report = await run_job(source, "h264", options=options)
    assert report.result.duration_s == pytest.approx(2.0, abs=0.1)
