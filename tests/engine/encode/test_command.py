"""Check the arguments that a plan becomes, as tables; no ffmpeg runs here."""

import dataclasses
from fractions import Fraction
from typing import Any

import msgspec
import pytest

from distconv_engine.encode.command import Request, commands, cover_commands, target_size
from distconv_engine.encode.encoders import ENCODERS, encoders_of
from distconv_engine.encode.pace import Pace
from distconv_engine.encode.plan import make_plan
from distconv_engine.failures import InputFault
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.media.probe import Colour, Probe, Stream
from distconvd.model import CODECS, Job, TranscodeOptions

VIDEO = Stream(0, "video", "h264", width=1920, height=1080, fps=50.0, pix_fmt="yuv420p")
AUDIO = Stream(1, "audio", "dts", channels=6, sample_rate=48000)


def lists(codec: str = "h264", *streams: Stream, **options: Any) -> list[list[str]]:
    return commands(request_of(codec, *streams, **options))


def request_of(
    codec: str,
    *streams: Stream,
    encoder: str | None = None,
    source: str = "file:/in",
    **options: Any,
) -> Request:
    typed = msgspec.convert(options, TranscodeOptions)
    job = Job("1", "file:///in", codec, options=typed)
    plan = make_plan(job, Probe("mov,mp4", 1.0, 0.0, streams or (VIDEO, AUDIO)))
    row = ENCODERS[encoder] if encoder else encoders_of(plan.codec, hardware=False)[0]
    tools = Tools("ffmpeg", "ffprobe", "8.0")
    return Request(tools, source, plan, typed, row, "file:/out.mp4")


def value(argv: list[str], option: str) -> str | None:
    return argv[argv.index(option) + 1] if option in argv else None


@pytest.mark.parametrize(
    "codec,encoder,quality",
    [
        ("h264", "libx264", "21"),
        ("hevc", "libx265", "25"),
        ("vp8", "libvpx", "10"),
        ("vp9", "libvpx-vp9", "32"),
        ("av1", "libsvtav1", "32"),
    ],
)
def test_each_codec_has_sensible_defaults(codec: str, encoder: str, quality: str) -> None:
    (argv,) = lists(codec)
    assert value(argv, "-c:0") == encoder
    assert value(argv, "-crf") == quality
    assert value(argv, "-map") == "0:0"


def test_input_protocols_and_formats_are_restricted() -> None:
    (argv,) = lists()
    assert "-nostdin" in argv
    assert value(argv, "-protocol_whitelist") == "file"
    formats = (value(argv, "-format_whitelist") or "").split(",")
    assert not {"hls", "dash", "concat", "sdp", "image2", "ffmetadata", "tty"} & set(formats)
    assert argv.index("-protocol_whitelist") < argv.index("-i")
    assert argv[-1] == "file:/out.mp4"


@pytest.mark.parametrize(
    "options,option,expected",
    [
        ({"crf": 30}, "-crf", "30"),
        ({"video_bitrate_kbps": 900}, "-b:v", "900k"),
        ({"video_bitrate_kbps": 900}, "-crf", None),
        ({"preset": "veryfast"}, "-preset", "veryfast"),
        ({"tune": "film"}, "-tune", "film"),
        ({"faststart": False}, "-movflags", None),
        ({}, "-movflags", "+faststart"),
        ({"audio_bitrate_kbps": 96}, "-b:1", "96k"),
        ({}, "-b:1", "384k"),
        ({"max_fps": 25}, "-filter:0", "fps=25:eof_action=pass,format=yuv420p"),
        ({"max_fps": 60}, "-filter:0", "format=yuv420p"),
        ({"max_width": 1280}, "-filter:0", "scale=1280:720,format=yuv420p"),
        ({"max_height": 4000}, "-filter:0", "format=yuv420p"),
    ],
)
def test_each_option_becomes_its_ffmpeg_argument(
    options: dict[str, Any], option: str, expected: str | None
) -> None:
    (argv,) = lists("h264", **options)
    assert value(argv, option) == expected


@pytest.mark.parametrize(
    "width,height,options,expected",
    [
        (1920, 1080, {}, (1920, 1080)),
        (161, 91, {}, (160, 90)),
        (1920, 1080, {"max_width": 1279}, (1278, 718)),
        (1920, 1080, {"max_width": 640, "max_height": 100}, (176, 100)),
        (320, 180, {"max_width": 640}, (320, 180)),
        (1, 1, {}, (16, 16)),
        (4000, 2, {"max_width": 100}, (100, 16)),
    ],
)
def test_sizes_are_even_within_the_maxima_and_never_scaled_up(
    width: int, height: int, options: dict[str, Any], expected: tuple[int, int]
) -> None:
    stream = dataclasses.replace(VIDEO, width=width, height=height)
    typed = msgspec.convert(options, TranscodeOptions)
    assert target_size(stream, typed, ENCODERS["libx264"]) == expected


def test_a_rotated_picture_is_measured_as_players_show_it() -> None:
    stream = dataclasses.replace(VIDEO, rotation=-90)
    size = target_size(stream, TranscodeOptions(max_width=540), ENCODERS["libx264"])
    assert size == (540, 960)


def test_hdr_keeps_ten_bits_and_its_tags() -> None:
    colour = Colour("bt2020", "smpte2084", "bt2020nc", "tv")
    (argv,) = lists("hevc", dataclasses.replace(VIDEO, pix_fmt="yuv420p10le", colour=colour))
    assert value(argv, "-filter:0") == "format=yuv420p10le"
    assert value(argv, "-color_trc") == "smpte2084"
    assert value(argv, "-tag:0") == "hvc1"


def test_interlaced_pictures_are_deinterlaced_frame_by_frame() -> None:
    (argv,) = lists("h264", dataclasses.replace(VIDEO, field_order="tt"))
    assert (value(argv, "-filter:0") or "").startswith("bwdif=mode=send_frame")


@pytest.mark.parametrize(
    "version,ticks",
    [("5.1.9-0+deb12u1", "-1"), ("6.0", "-1"), ("6.1.2", "demux"), ("n9.0.2", "demux"), ("N-1-g", "demux")],
)  # fmt: skip
@pytest.mark.parametrize("two_pass", [False, True])
def test_every_frame_keeps_its_time_to_the_tick_of_the_source(
    version: str, ticks: str, two_pass: bool
) -> None:
    request = request_of("h264", two_pass=two_pass, video_bitrate_kbps=500)
    request = dataclasses.replace(request, tools=Tools("ffmpeg", "ffprobe", version))
    for argv in commands(request):
        spec = "v" if argv[-2:] == ["null", "-"] else "0"
        assert value(argv, f"-fps_mode:{spec}") == "passthrough"
        assert value(argv, f"-enc_time_base:{spec}") == ticks


def test_frames_at_one_time_are_moved_apart_within_their_tick() -> None:
    request = request_of("h264")
    pace = Pace(tick=Fraction(1, 2000))
    request = dataclasses.replace(request, plan=dataclasses.replace(request.plan, pace=pace))
    (argv,) = commands(request)
    assert (value(argv, "-filter:0") or "").startswith("settb=1/2000,setpts=if(isnan(PREV_OUTPTS)")
    assert value(argv, "-enc_time_base:0") == "1/2000"


@pytest.mark.parametrize(
    "codec,first,last",
    [("h264", "-pass 1", "-pass 2"), ("hevc", "pass=1:stats=", "pass=2:stats=")],
)
def test_two_passes_are_two_commands(codec: str, first: str, last: str) -> None:
    one, two = lists(codec, two_pass=True, video_bitrate_kbps=500)
    assert first in " ".join(one)
    assert last in " ".join(two)
    assert one[-3:] == ["-f", "null", "-"]


@pytest.mark.parametrize(
    "codec,options,words",
    [
        ("h264", {"crf": 52}, "crf"),
        ("vp8", {"crf": 3}, "crf"),
        ("h264", {"crf": 20, "video_bitrate_kbps": 100}, "cannot be combined"),
        ("h264", {"preset": "warp"}, "preset"),
        ("av1", {"preset": "medium"}, "preset"),
        ("h264", {"preset": "medium -vf x"}, "preset"),
        ("vp9", {"tune": "film; rm"}, "tune"),
        ("av1", {"tune": "psnr"}, "tune"),
        ("h264", {"two_pass": True}, "two_pass"),
        ("av1", {"two_pass": True, "video_bitrate_kbps": 100}, "two_pass"),
        ("h264", {"max_width": 0}, "max_width"),
        ("h264", {"video_bitrate_kbps": -1}, "video_bitrate_kbps"),
        ("h264", {"max_fps": -5.0}, "max_fps"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(
    codec: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputFault) as caught:
        lists(codec, **options)
    assert words in caught.value.message


def test_matroska_gets_each_cover_as_an_attachment_from_an_extracted_file() -> None:
    covers = [Stream(n, "video", kind, is_cover=True) for n, kind in ((2, "mjpeg"), (3, "png"))]
    request = request_of("h264", VIDEO, AUDIO, *covers, container="mkv")
    made = cover_commands(request)
    (argv,) = commands(request)
    assert [value(one, "-map") for one in made] == ["0:2", "0:3"]
    assert [one[-1] for one in made] == ["file:cover.jpg", "file:cover-2.png"]
    assert [argv[n + 1] for n, word in enumerate(argv) if word == "-map"] == ["0:0", "0:1"]
    assert [argv[n + 1] for n, word in enumerate(argv) if word == "-attach"] == [
        one[-1] for one in made
    ]
    assert "mimetype=image/png" in argv


def test_other_containers_have_covers_among_their_streams() -> None:
    request = request_of("h264", VIDEO, Stream(2, "video", "mjpeg", is_cover=True))
    assert not cover_commands(request)
    assert value(commands(request)[0], "-disposition:1") == "attached_pic"


def test_every_encoder_row_is_consistent() -> None:
    for row in ENCODERS.values():
        assert list(row.presets) == list(CODECS[row.codec].presets)
        assert row.preset_default in row.presets.values()
        assert row.quality_default in row.quality or not row.quality


def test_every_codec_has_the_encoders_that_the_model_names_in_its_order() -> None:
    for rules in CODECS.values():
        rows = encoders_of(rules.name, hardware=False)
        assert tuple(row.name for row in rows) == rules.encoders
        assert all(row.two_pass == rules.two_pass for row in rows)
        assert all((row.tune_option is not None) == bool(rules.tunes) for row in rows)


def test_a_title_is_only_ever_the_value_of_an_option() -> None:
    streams = (VIDEO, dataclasses.replace(AUDIO, title="-i /etc/passwd"))
    (argv,) = lists("h264", *streams)
    places = [place for place, word in enumerate(argv) if "/etc/passwd" in word]
    assert [argv[place] for place in places] == [
        "title=-i /etc/passwd",
        "handler_name=-i /etc/passwd",
    ]
    assert {argv[place - 1] for place in places} == {"-metadata:s:1"}
