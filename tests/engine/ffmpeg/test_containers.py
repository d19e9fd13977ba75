"""The tables of containers, demuxers and codecs agree, and nothing else tests for a name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import distconv_engine
from distconv_engine.ffmpeg.codecs import (
    AUDIO_CODECS,
    COVERS,
    TEXT_SUBTITLES,
    VIDEO_CODECS,
    audio_codec,
    video_codec,
)
from distconv_engine.ffmpeg.containers import CONTAINERS, Container
from distconv_engine.ffmpeg.demuxers import DEMUXER_NAMES, DEMUXERS, demuxer_of
from distconv_plugins.hot_folder.names import is_video
from distconv_plugins.media_store.names import content_type_of
from distconvd import model

ROOT = Path(distconv_engine.__file__).parents[2]
FOLDERS = ("engine/distconv_engine", "plugins/distconv_plugins", "client/distconv_client")
TABLES = {f"engine/distconv_engine/{name}.py" for name in ("encode/encoders",)}
"""Where a codec's rows are made by a function."""
EXEMPT = {
    ("engine/distconv_engine/media/probe.py", "aac"): "what ADTS is: AAC without parameters",
    ("client/distconv_client/doctor/roundtrip.py", "h264"): "which codec the doctor tries first",
}
NAMES = frozenset(
    (
        *(*CONTAINERS, *DEMUXERS, *(row.muxer for row in CONTAINERS.values())),
        *(*model.CODECS, *VIDEO_CODECS, *AUDIO_CODECS, *TEXT_SUBTITLES, *COVERS),
    )
)
ROWS = pytest.mark.parametrize("row", CONTAINERS.values(), ids=lambda row: row.name)


def compared_names(path: Path) -> Iterator[str]:
    """Yield each name of a container or codec that a module compares something with."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare | ast.MatchValue):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and part.value in NAMES:
                    yield str(part.value)


def test_no_module_tests_for_a_container_or_codec_by_name() -> None:
    """A new container is a row in two tables, and nothing else has to learn of it."""
    places = {
        (str(path.relative_to(ROOT)), name)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for name in compared_names(path)
    }
    assert {(path, name) for path, name in places if path not in TABLES} == set(EXEMPT)


def test_both_tables_have_the_same_containers() -> None:
    assert set(CONTAINERS) == set(model.CONTAINERS)


@ROWS
def test_what_an_engine_writes_it_can_read(row: Container) -> None:
    assert row.family.demuxer in DEMUXERS


@ROWS
def test_an_index_that_can_be_first_is_one_that_flags_can_move(row: Container) -> None:
    assert row.rules.faststart == (row.family.index_flags is not None)


@ROWS
def test_what_a_container_gets_converted_has_an_encoder(row: Container) -> None:
    assert all(audio_codec(name).encoder for name in row.rules.audio)
    assert row.text_made is None or TEXT_SUBTITLES[row.text_made].encoder


@ROWS
def test_a_container_has_one_media_type_wherever_it_is_named(row: Container) -> None:
    """The engine sends it with an upload; the media store serves it."""
    assert content_type_of(f"film{row.suffix.upper()}") == row.rules.mime


@ROWS
def test_a_hot_folder_takes_a_file_of_every_container(row: Container) -> None:
    assert is_video(f"film{row.suffix}")


def test_every_video_codec_of_a_job_has_a_row_for_its_packets() -> None:
    assert set(model.CODECS) <= set(VIDEO_CODECS)


def test_every_audio_codec_of_a_job_can_be_encoded() -> None:
    assert all(audio_codec(name).encoder for name in model.AUDIO_CODECS)


def test_what_has_no_row_has_no_stated_property() -> None:
    unknown = demuxer_of("nut")
    assert (unknown.name, unknown.states_duration, unknown.places_packets) == ("nut", False, False)
    assert not video_codec("ffv1").never_zero
    assert audio_codec("vorbis").encoder is None


def test_ffmpeg_gets_all_names_of_each_demuxer() -> None:
    names = DEMUXER_NAMES.split(",")
    assert len(names) == len(set(names))
    assert {"mov", "mp4", "m4a", "matroska", "webm", "mpegts", "yuv4mpegpipe", "mtv"} <= set(names)
    assert {"nut", "voc", "dts", "truehd", "gxf", "hls", "concat"}.isdisjoint(names)
