"""Check that the tables of codecs and containers find all impossible options, no others."""

from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from distconvd.model import (
    CODECS,
    CONTAINERS,
    OPTION_RANGES,
    ContainerName,
    Output,
    TranscodeOptions,
    container_of,
    find_fault,
)


def fault(codec: str, output: dict[str, Any] | None = None, **options: Any) -> str | None:
    """Return the field at fault."""
    typed = msgspec.convert(options, TranscodeOptions)
    found = find_fault(typed, codec, msgspec.convert(output, Output) if output else None)
    return found.field if found else None


@pytest.mark.parametrize(
    "codec,options,field",
    [
        ("h264", {"crf": 51}, None),
        ("h264", {"crf": 52}, "crf"),
        ("vp8", {"crf": 3}, "crf"),
        ("av1", {"crf": 0}, "crf"),
        ("vp9", {"crf": 63}, None),
        ("h264", {"crf": 20, "video_bitrate_kbps": 900}, "crf"),
        ("hevc", {"preset": "placebo"}, None),
        ("hevc", {"preset": "8"}, "preset"),
        ("vp9", {"preset": "9"}, "preset"),
        ("vp8", {"preset": "16"}, None),
        ("av1", {"preset": "medium"}, "preset"),
        ("h264", {"tune": "film"}, None),
        ("hevc", {"tune": "film"}, "tune"),
        ("av1", {"tune": "psnr"}, "tune"),
        ("h264", {"two_pass": True}, "two_pass"),
        ("h264", {"two_pass": False}, None),
        ("h264", {"two_pass": True, "video_bitrate_kbps": 500}, None),
        ("av1", {"two_pass": True, "video_bitrate_kbps": 500}, "two_pass"),
        ("av1", {"video_bitrate_kbps": 100_001}, "video_bitrate_kbps"),
        ("vp8", {"container": "mp4"}, "container"),
        ("av1", {"container": "ts"}, "container"),
        ("vp9", {"container": "mp4"}, None),
        ("vp9", {"audio_codec": "aac"}, None),
        ("vp9", {"audio_codec": "aac", "container": "webm"}, "audio_codec"),
        ("h264", {"audio_codec": "opus", "container": "mov"}, "audio_codec"),
        ("h264", {"audio_codec": "copy", "audio_bitrate_kbps": 96}, "audio_bitrate_kbps"),
        ("h264", {"faststart": True}, None),
        ("h264", {"faststart": True, "container": "ts"}, "faststart"),
        ("h264", {"faststart": False, "container": "ts"}, None),
        ("vp9", {"faststart": True}, "faststart"),
        ("vp9", {"faststart": True, "container": "mp4"}, None),
    ],
)
def test_an_option_that_no_engine_can_satisfy_is_named(
    codec: str, options: dict[str, Any], field: str | None
) -> None:
    assert fault(codec, **options) == (field and f"options.{field}")


@pytest.mark.parametrize(
    "url, name, field",
    [
        ("file:///out/y.mkv", "x.mp4", "output.name"),
        ("file:///out/y.mkv", "x.mkv", None),
        ("file:///out/", "x.mp4", None),
        ("file:///out/y.mkv", None, None),
    ],
)
def test_a_url_and_a_name_that_ask_for_two_containers_are_refused(
    url: str, name: str | None, field: str | None
) -> None:
    assert fault("h264", {"url": url, "name": name}) == field


@pytest.mark.parametrize("name", OPTION_RANGES)
def test_every_number_has_a_range_whatever_the_codec(name: str) -> None:
    least, most = OPTION_RANGES[name]
    for codec in ("h264", "prores"):
        for value in (least - 1, most + 1):
            assert fault(codec, None, **{name: value}) == f"options.{name}"
    assert fault("prores", None, **{name: most}) is None


def test_an_unknown_codec_is_accepted_with_whatever_options_its_engine_may_know() -> None:
    odd: dict[str, Any] = {
        "crf": 63,
        "preset": "standard",
        "tune": "odd",
        "container": "mov",
        "faststart": True,
    }
    assert fault("prores", **odd) is None
    assert fault("prores", two_pass=True, video_bitrate_kbps=9) is None
    assert fault("prores", faststart=True) is None
    assert fault("prores", two_pass=True) == "options.two_pass"


@pytest.mark.parametrize(
    "output,field",
    [
        ({"name": "film.webm"}, "output.name"),
        ({"url": "file:///srv/FILM.WEBM"}, "output.url"),
        ({"url": "https://example.com/film.webm?a=b.mp4"}, "output.url"),
        ({"url": "file:///srv/dir.webm/"}, None),
        ({"url": "file:///srv/film.webm", "name": "film.mp4"}, "output.name"),
        ({"url": "file:///srv/dir.webm/", "name": "film.mp4"}, None),
        ({"name": "film.odd"}, None),
    ],
)
def test_a_name_asks_for_a_container_by_its_suffix(
    output: dict[str, Any], field: str | None
) -> None:
    assert fault("h264", output) == field
    assert fault("h264", output, container="mkv") is None


def test_the_tables_fit_together() -> None:
    assert tuple(CONTAINERS) == get_args(ContainerName)
    assert get_type_hints(TranscodeOptions)["container"] == ContainerName | None
    for row in CODECS.values():
        assert row.crf_default in row.crf
        assert row.preset_default in row.presets
        assert all(row.name in CONTAINERS[name].video for name in row.containers)
        audio = {codec for name in row.containers for codec in CONTAINERS[name].audio}
        assert audio == {"aac", "opus"}  # whichever a job asks for, there is a place for it
    assert all(container_of(f"a{row.suffix}") == row.name for row in CONTAINERS.values())
