"""Check what becomes of each stream, as tables."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from distconv_engine.encode.plan import Plan, make_plan
from distconv_engine.failures import InputFault
from distconv_engine.media.packets import Edit
from distconv_engine.media.probe import Colour, Probe, Stream
from distconvd.model import Job

VIDEO = Stream(0, "video", "h264", width=1920, height=1080, fps=25.0, pix_fmt="yuv420p")
AAC = Stream(1, "audio", "aac", channels=2, sample_rate=48000, language="eng")
DTS = Stream(2, "audio", "dts", channels=6, sample_rate=48000)
SRT = Stream(3, "subtitle", "subrip", language="fre")
ASS = Stream(3, "subtitle", "ass")
PGS = Stream(3, "subtitle", "hdmv_pgs_subtitle")
COVER = Stream(4, "video", "mjpeg", is_cover=True)
FONT = Stream(5, "attachment", "ttf")
TIMECODE = Stream(6, "data", "unknown")


def plan(
    codec: str,
    *streams: Stream,
    chapters: int = 0,
    edits: Mapping[int, Edit] | None = None,
    **fields: object,
) -> Plan:
    job = msgspec.convert(
        {"job_id": "1", "source_url": "file:///a", "target_codec": codec, **fields}, Job
    )
    return make_plan(job, Probe("matroska,webm", 1.0, 0.0, streams, chapters), edits)


def output_streams(found: Plan) -> list[str]:
    return [f"{k.action} {k.codec}" for k in found.output_streams]


@pytest.mark.parametrize(
    "codec,streams,container,expected",
    [
        ("h264", (VIDEO, AAC), "mp4", ["encode h264", "copy aac"]),
        ("libx265", (VIDEO, AAC), "mp4", ["encode hevc", "copy aac"]),
        ("h264", (VIDEO, DTS), "mp4", ["encode h264", "encode aac"]),
        ("vp9", (VIDEO, AAC), "webm", ["encode vp9", "encode opus"]),
        ("vp8", (VIDEO, AAC, SRT), "webm", ["encode vp8", "encode opus", "encode webvtt"]),
        ("h264", (VIDEO, SRT), "mp4", ["encode h264", "encode mov_text"]),
        ("h264", (VIDEO, ASS), "mkv", ["encode h264", "copy ass"]),
        ("av1", (VIDEO, PGS), "mkv", ["encode av1", "copy hdmv_pgs_subtitle"]),
        ("h264", (VIDEO, AAC, COVER), "mp4", ["encode h264", "copy aac", "copy mjpeg"]),
        ("vp9", (VIDEO, COVER), "mkv", ["encode vp9", "copy mjpeg"]),
        ("h264", (VIDEO, FONT), "mkv", ["encode h264", "copy ttf"]),
        ("h264", (AAC,), "mp4", ["copy aac"]),
    ],
)
def test_the_first_container_that_supports_every_stream_is_chosen(
    codec: str, streams: tuple[Stream, ...], container: str, expected: list[str]
) -> None:
    found = plan(codec, *streams)
    assert found.container.name == container
    assert output_streams(found) == expected
    assert found.dropped == ()


@pytest.mark.parametrize(
    "fields,container",
    [
        ({"options": {"container": "mkv"}}, "mkv"),
        ({"output": {"name": "film.mov"}}, "mov"),
        ({"output": {"url": "file:///x/film.TS"}}, "ts"),
        ({"output": {"name": "film"}}, "mp4"),
        ({"options": {"container": "mp4"}, "output": {"name": "film.mkv"}}, "mp4"),
    ],
)
def test_a_container_is_named_by_the_option_or_by_the_outputs_suffix(
    fields: dict[str, Any], container: str
) -> None:
    assert plan("h264", VIDEO, **fields).container.name == container


@pytest.mark.parametrize(
    "codec,container,streams,chapters,culprit",
    [
        ("h264", "mp4", (VIDEO, PGS), 0, "subtitle #3 (hdmv_pgs_subtitle)"),
        ("vp9", "webm", (VIDEO, COVER), 0, "cover #4 (mjpeg)"),
        ("h264", "mov", (VIDEO, COVER), 0, "cover #4 (mjpeg)"),
        ("h264", "ts", (VIDEO, SRT), 0, "subtitle #3 (subrip, fre)"),
        ("h264", "ts", (VIDEO, AAC), 2, "chapters"),
        ("h264", "mp4", (VIDEO, VIDEO.__class__(9, "video", "h264")), 0, "video #9 (h264)"),
        (
            "vp8",
            "webm",
            (Stream(0, "video", "hevc", colour=Colour(transfer="smpte2084")),),
            0,
            "HDR",
        ),
    ],
)
def test_what_a_container_does_not_support_is_refused_by_name_or_dropped_and_reported(
    codec: str, container: str, streams: tuple[Stream, ...], chapters: int, culprit: str
) -> None:
    with pytest.raises(InputFault) as caught:
        plan(codec, *streams, chapters=chapters, options={"container": container})
    assert culprit in caught.value.message
    found = plan(
        codec,
        *streams,
        chapters=chapters,
        options={"container": container, "on_unsupported": "drop"},
    )
    assert any(culprit in dropped for dropped in found.dropped)


@pytest.mark.parametrize(
    "stream,way_out",
    [
        (PGS, "Choose another container, or set"),
        (Stream(3, "subtitle", "unknown"), "No container can: set"),  # WebVTT of mkvmerge
        (Stream(3, "audio", "opus", channels=2, is_iamf=True), "No container can: set"),
    ],
)
def test_another_container_is_recommended_only_if_one_supports_the_stream(
    stream: Stream, way_out: str
) -> None:
    with pytest.raises(InputFault, match=way_out):
        plan("h264", VIDEO, stream, options={"container": "mp4"})


@pytest.mark.parametrize(
    "options,expected,dropped",
    [
        ({"audio_codec": "none"}, ["encode h264", "encode mov_text"], ["audio #1 (aac, eng)"]),
        ({"audio_codec": "opus"}, ["encode h264", "encode opus", "encode mov_text"], []),
        ({"audio_bitrate_kbps": 64}, ["encode h264", "encode aac", "encode mov_text"], []),
        ({"subtitles": "drop"}, ["encode h264", "copy aac"], ["subtitle #3 (subrip, fre)"]),
    ],
)
def test_options_decide_about_audio_and_subtitles(
    options: dict[str, Any], expected: list[str], dropped: list[str]
) -> None:
    found = plan("h264", VIDEO, AAC, SRT, options=options)
    assert output_streams(found) == expected
    assert list(found.dropped) == dropped


@pytest.mark.parametrize(
    "container,edit,action",
    [
        ("mp4", "head", "copy"),
        ("mov", "head", "copy"),
        ("mkv", "head", "encode"),
        ("ts", "head", "encode"),
        ("mp4", "inside", "encode"),
        ("mkv", "inside", "encode"),
    ],
)
def test_audio_partly_hidden_by_an_edit_list_is_copied_only_where_that_stays_hidden(
    container: str, edit: Edit, action: str
) -> None:
    options = {"container": container}
    found = plan("h264", VIDEO, AAC, options=options, edits={1: edit})
    assert output_streams(found) == ["encode h264", f"{action} aac"]


def test_audio_with_an_edit_list_is_refused_by_name_where_a_copy_is_asked_for() -> None:
    options = {"container": "mkv", "audio_codec": "copy"}
    with pytest.raises(InputFault, match=r"a copy of audio #1 .aac, eng. with its edit list"):
        plan("h264", VIDEO, AAC, options=options, edits={1: "head"})


def test_covers_come_after_all_other_streams() -> None:
    assert output_streams(plan("h264", COVER, VIDEO, AAC)) == [
        "encode h264",
        "copy aac",
        "copy mjpeg",
    ]


def test_an_alpha_channel_is_dropped_and_reported_without_a_refusal() -> None:
    found = plan("vp9", Stream(0, "video", "prores", has_alpha=True))
    assert output_streams(found) == ["encode vp9"]
    assert found.dropped == ("the alpha channel of video #0 (prores)",)


def test_a_time_code_track_is_dropped_and_reported_without_a_refusal() -> None:
    assert plan("h264", VIDEO, TIMECODE).dropped == ("data #6 (unknown)",)


@pytest.mark.parametrize(
    "codec,options,streams",
    [
        ("h264", {"container": "webm"}, (VIDEO,)),
        ("vp9", {"container": "mov"}, (VIDEO,)),
        ("vp9", {"audio_codec": "aac", "container": "webm"}, (VIDEO, AAC)),
        ("vp9", {"faststart": True}, (VIDEO,)),
        ("mpeg2", {}, (VIDEO,)),
        ("h264", {"audio_codec": "none"}, (AAC,)),
        ("vp9", {"audio_codec": "copy", "container": "webm"}, (VIDEO, AAC)),
    ],
)
def test_an_impossible_request_is_an_input_failure(
    codec: str, options: dict[str, Any], streams: tuple[Stream, ...]
) -> None:
    with pytest.raises(InputFault):
        plan(codec, *streams, options=options)


MANY = Stream(0, "audio", "pcm_s16le", channels=16, sample_rate=48000, has_layout=False)


def test_more_channels_than_aac_supports_are_copied_if_possible_else_refused() -> None:
    assert output_streams(plan("h264", MANY)) == ["copy pcm_s16le"]
    with pytest.raises(InputFault, match=r"the 16 channels of audio #0 .pcm_s16le. as aac"):
        plan("h264", MANY, options={"container": "mp4"})
    left = plan("h264", VIDEO, MANY, options={"container": "mp4", "on_unsupported": "drop"})
    assert left.dropped == ("the 16 channels of audio #0 (pcm_s16le) as aac",)


@pytest.mark.parametrize(
    "layout,channels,label",
    [
        ("5.1", 6, "audio #0 (pcm_s16le) to aac"),
        ("5.1.2", 8, "audio #0 (pcm_s16le) to aac, 5.1.2 downmixed"),
        ("1 channels (FL)", 1, "audio #0 (pcm_s16le) to aac, 1 channels (FL) as mono"),
    ],
)
def test_audio_in_a_layout_that_aac_lacks_is_converted_and_the_result_says_how(
    layout: str, channels: int, label: str
) -> None:
    stream = Stream(0, "audio", "pcm_s16le", channels=channels, sample_rate=48000, layout=layout)
    assert plan("h264", stream, options={"audio_codec": "aac"}).labels() == [label]


def test_audio_in_a_layout_without_loudspeakers_is_refused_by_name() -> None:
    stream = Stream(0, "audio", "opus", channels=4, sample_rate=48000, layout="ambisonic 1")
    with pytest.raises(InputFault, match="cannot hold the ambisonic 1 audio of audio #0"):
        plan("h264", stream, options={"audio_codec": "aac"})
