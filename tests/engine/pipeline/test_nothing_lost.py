"""Check that nothing is lost in silence: what is no picture and no sound is kept or listed.

The outputs are read by the bundled ffprobe, whatever ffmpeg the engine has.
"""

import json
import struct
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.engine.clips import Clips
from tests.engine.conftest import Run

from distconv_engine.failures import InputFault
from distconv_engine.ffmpeg.tools import find_tools

pytestmark = pytest.mark.e2e

_AV = "-f lavfi -i testsrc2=s=160x90:r=25:d=1 -f lavfi -i sine=d=1"
_H264 = "-c:v libx264 -preset ultrafast -threads 1 -pix_fmt yuv420p"
TITLED = (
    f"{_AV} -f lavfi -i sine=440:d=1 -i {{srt}} -i {{srt}} -map 0 -map 1 -map 2 -map 3 -map 4 {_H264} "
    "-c:a aac -c:s srt -metadata title=Film -metadata:s:a:0 title=Director's -metadata:s:a:1 title=Ton "
    "-metadata:s:a:0 language=eng -metadata:s:a:1 language=ger -metadata:s:s:0 language=eng "
    "-metadata:s:s:1 title=Signs -disposition:a:0 comment -disposition:a:1 default "
    "-disposition:s:0 0 -disposition:s:1 forced"
)
"""Two sounds with titles, the second of which is the default; two subtitles, none of them a default."""
MOMENT = "2024-01-02T03:04:05.000000Z"
PHONE = {
    "com.apple.quicktime.location.ISO6709": "+48.1372+011.5756/",
    "com.apple.quicktime.creationdate": "2024-01-02T04:04:05+0100",
    "com.apple.quicktime.make": "Apple",
}
QUICK = {"preset": "ultrafast"}


class Described(NamedTuple):
    """A stream, as it is described."""

    title: str | None
    language: str | None
    marks: set[str]


def probe(path: Path, *options: str) -> dict[str, Any]:
    argv = [find_tools(None).ffprobe, "-v", "error", "-of", "json", "-show_streams", "-show_format"]
    found: dict[str, Any] = json.loads(subprocess.check_output([*argv, *options, str(path)]))
    return found


def output_of(report: Any) -> Path:
    return Path(report.output_url.removeprefix("file://"))


def described(path: Path) -> list[Described]:
    return [
        Described(
            found["tags"].get("title", found["tags"].get("name")),
            found["tags"].get("language", "und").replace("und", "") or None,
            {mark for mark, is_set in found["disposition"].items() if is_set},
        )
        for found in probe(path)["streams"]
    ]


def made(clips: Clips, name: str, recipe: str) -> Path:
    return clips.make(name, *(clips._fill(word) for word in recipe.split()))


@pytest.mark.parametrize(
    "container,lost",
    [
        ("mp4", []),
        ("mkv", []),
        (
            "mov",
            [
                "the mark 'comment' of audio #1 (aac, eng)",
                "the mark 'forced' of subtitle #4 (subrip)",
            ],
        ),
    ],
)
async def test_titles_languages_and_marks_are_kept_and_what_a_container_cannot_keep_is_listed(
    container: str, lost: list[str], run_job: Run, clips: Clips
) -> None:
    report = await run_job(
        made(clips, "titled.mkv", TITLED), "h264", options={"container": container, **QUICK}
    )

    marks = [set() if lost else {mark} for mark in ("comment", "forced")]
    assert report.result.dropped == lost
    assert described(output_of(report))[1:] == [
        Described("Director's", "eng", marks[0]),
        Described("Ton", "ger", {"default"}),
        Described(None, "eng", set()),
        Described("Signs", None, marks[1]),
    ]


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
async def test_place_time_and_camera_of_a_phones_film_are_kept(
    container: str, run_job: Run, clips: Clips
) -> None:
    report = await run_job(phone(clips), "h264", options={"container": container, **QUICK})

    tags = {
        name.lower(): value for name, value in probe(output_of(report))["format"]["tags"].items()
    }
    expected = {name.lower(): value for name, value in PHONE.items()}
    assert {**expected, "creation_time": MOMENT}.items() <= tags.items()
    assert report.result.dropped == []


async def test_tags_for_which_a_container_has_no_place_are_listed(
    run_job: Run, clips: Clips
) -> None:
    report = await run_job(phone(clips), "h264", options={"container": "ts", **QUICK})

    names = ", ".join(sorted(name.lower() for name in PHONE))
    assert f"the tags {names}, creation_time" in report.result.dropped


HDR_PARAMETERS = (
    "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:range=limited:hdr10=1:"
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"
)
HDR = (
    "-f lavfi -i testsrc2=s=160x90:r=25:d=0.4 -pix_fmt yuv420p10le -c:v libx265 -preset ultrafast "
    f"-x265-params {HDR_PARAMETERS} -tag:v hvc1"
)


@pytest.mark.parametrize(
    "codec,container,source",
    [
        ("h265", "mp4", "hdr-numbers.mp4"),
        ("h264", "mkv", "hdr-numbers.mkv"),
        ("av1", "mp4", "hdr-numbers.mp4"),
        ("h265", "ts", "hdr-numbers.mp4"),
    ],
)
async def test_the_numbers_of_an_hdr_film_are_kept_though_they_are_in_its_pictures_only(
    codec: str, container: str, source: str, run_job: Run, clips: Clips
) -> None:
    report = await run_job(made(clips, source, HDR), codec, options={"container": container})

    options = ["-show_frames", "-read_intervals", "%+#1"] if container == "ts" else []
    found = probe(output_of(report), *options)
    data: dict[str, Any] = {}
    for part in (
        found["frames"][0]["side_data_list"] if options else found["streams"][0]["side_data_list"]
    ):
        data |= part
    assert Fraction(data["max_luminance"]) == 1000
    assert (data["max_content"], data["max_average"]) == (1000, 400)
    assert found["streams"][0]["color_transfer"] == "smpte2084"
    assert report.result.dropped == []


async def test_the_profile_of_dolby_vision_that_no_other_player_shows_is_refused_by_name(
    run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    source = tmp_path / "profile5.mp4"
    source.write_bytes(with_dolby_vision(made(clips, "hdr-numbers.mp4", HDR).read_bytes(), 5, 0))
    with pytest.raises(InputFault, match="Dolby Vision profile 5"):
        await run_job(source, "h265")


async def test_dolby_vision_above_pictures_that_others_can_show_is_listed_as_dropped(
    run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    source = tmp_path / "profile8.mp4"
    source.write_bytes(with_dolby_vision(made(clips, "hdr-numbers.mp4", HDR).read_bytes(), 8, 4))
    report = await run_job(source, "h265", options=QUICK)
    assert report.result.dropped == ["the Dolby Vision metadata of video #0 (hevc)"]


def with_dolby_vision(mp4: bytes, profile: int, compatible: int) -> bytes:
    """Add the box that states Dolby Vision to the entry of the video track of a file whose index is last."""
    flags = (profile << 9) | (1 << 3) | (1 << 2) | 1
    body = b"\x01\x00" + struct.pack(">HB", flags, compatible << 4) + bytes(19)
    box = struct.pack(">I", 8 + len(body)) + (b"dvvC" if profile > 7 else b"dvcC") + body
    data = bytearray(mp4)
    moov = data.rindex(b"moov") - 4
    entry = data.index(b"hvc1", moov) - 4
    end = entry + struct.unpack_from(">I", data, entry)[0]
    parents = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
    for place in (entry, *(data.rindex(name, moov, entry) - 4 for name in parents)):
        struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] + len(box))
    data[end:end] = box
    return bytes(data)


IAMF = (
    "-f lavfi -i anoisesrc=d=1:a=0.1:r=48000 -filter_complex "
    "[0:a]aformat=channel_layouts=mono,asplit=6[a0][a1][a2][a3][c][l];"
    "[a0][a1]join=inputs=2:channel_layout=stereo[f];[a2][a3]join=inputs=2:channel_layout=stereo[s] "
    "-map [f] -map [s] -map [c] -map [l] -c:a libopus -streamid 0:0 -streamid 1:1 -streamid 2:2 -streamid 3:3 "
    "-stream_group type=iamf_audio_element:id=1:st=0:st=1:st=2:st=3:audio_element_type=channel,layer=ch_layout=5.1(side) "
    "-stream_group type=iamf_mix_presentation:id=2:stg=0:annotations=en-us=Mix,submix=parameter_id=100:parameter_rate=48000|element=stg=0:parameter_id=100:annotations=en-us=Scene|layout=sound_system=stereo:integrated_loudness=0"
)


async def test_immersive_sound_is_refused_by_name_instead_of_becoming_unrelated_tracks(
    run_job: Run, clips: Clips
) -> None:
    with pytest.raises(
        InputFault, match=r"immersive sound \(IAMF\) of audio #0.* No container can"
    ):
        await run_job(made(clips, "iamf.mp4", IAMF), "h264")


RAMP = "-f lavfi -i gradients=s=256x64:c0=black:c1=white:x0=0:y0=0:x1=255:y1=0:d=0.2:r=25"


@pytest.mark.parametrize("codec,container", [("h264", "mp4"), ("vp9", "webm")])
@pytest.mark.parametrize(
    "name,recipe",
    [
        ("ramp.mp4", f"{RAMP} -pix_fmt yuvj420p -c:v libx264 -qp 0 -preset ultrafast"),
        ("ramp.avi", f"{RAMP} -pix_fmt yuvj422p -c:v mjpeg -q:v 1"),
    ],
)
async def test_the_levels_of_a_full_range_film_stay_full(
    name: str, recipe: str, codec: str, container: str, run_job: Run, clips: Clips
) -> None:
    report = await run_job(made(clips, name, recipe), codec, options={"container": container})

    lowest, highest = levels(output_of(report))
    assert lowest <= 4
    assert highest >= 251
    assert probe(output_of(report))["streams"][0]["color_range"] == "pc"
    assert report.result.dropped == []


def levels(path: Path) -> tuple[int, int]:
    """Return the lowest and the highest level of the first picture."""
    argv = [find_tools(None).ffmpeg, "-v", "error", "-nostdin", "-i", str(path), "-frames:v", "1"]
    pixels = subprocess.check_output([*argv, "-vf", "extractplanes=y", "-f", "rawvideo", "-"])
    return min(pixels), max(pixels)


def phone(clips: Clips) -> Path:
    """A clip with the tags of an iPhone's."""
    tags = [f"-metadata {name}={value}" for name, value in PHONE.items()]
    options = f"-movflags use_metadata_tags -metadata creation_time={MOMENT} {' '.join(tags)}"
    return made(clips, "iphone.mov", f"{_AV} {_H264} -c:a aac {options}")
