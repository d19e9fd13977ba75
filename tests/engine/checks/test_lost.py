"""Check what counts as lost, as tables; no ffmpeg runs here."""

import dataclasses
from typing import Any

import msgspec
import pytest

from distconv_engine.checks.lost import find_lost
from distconv_engine.encode.marks import disabled_tracks
from distconv_engine.encode.plan import Plan, make_plan
from distconv_engine.media.probe import Colour, Probe, Stream
from distconvd.model import Job, TranscodeOptions

VIDEO = Stream(0, "video", "h264", width=16, height=16, fps=25.0, pix_fmt="yuv420p")
SOUND = Stream(1, "audio", "aac", channels=2, sample_rate=48000)
LINES = Stream(2, "subtitle", "subrip")


def plan_of(source: Probe, container: str = "mp4") -> Plan:
    options = msgspec.convert({"container": container}, TranscodeOptions)
    return make_plan(Job("1", "file:///a", "h264", options=options), source)


def lost(before: Stream, after: Stream) -> tuple[str, ...]:
    source = Probe(
        "matroska,webm", 1.0, 0.0, (VIDEO, before) if before.kind == "audio" else (before,)
    )
    found = Probe("mov,mp4", 1.0, 0.0, (VIDEO, after) if after.kind == "audio" else (after,))
    return find_lost(plan_of(source), source, found)


def changed(stream: Stream, **fields: Any) -> Stream:
    return dataclasses.replace(stream, **fields)


@pytest.mark.parametrize(
    "fields,words",
    [
        ({"title": "Ton"}, "the title of audio #1 (aac)"),
        ({"language": "deu"}, "the language of audio #1 (aac, deu)"),
        ({"marks": frozenset({"default", "comment"})}, "the mark 'comment' of audio #1 (aac)"),
    ],
)
def test_what_a_stream_says_of_itself_is_lost_if_its_copy_does_not_say_it(
    fields: dict[str, Any], words: str
) -> None:
    kept = changed(SOUND, marks=frozenset({"default"}))
    assert lost(changed(SOUND, **fields), kept) == (words,)
    assert lost(changed(SOUND, **fields), changed(kept, **fields)) == ()


@pytest.mark.parametrize(
    "name,before,after,is_lost",
    [
        ("title", "Film", None, True),
        ("title", "Film", "Fil", True),
        ("title", "Film", "Film", False),
        ("creation_time", "2024-01-02T03:04:05Z", "2024-01-02T03:04:05.000000Z", False),
        ("creation_time", "2024-01-02T03:04:05Z", None, True),
        ("major_brand", "qt  ", None, False),
    ],
)
def test_a_tag_is_lost_if_it_is_absent_or_says_something_else_and_is_not_technical(
    name: str, before: str, after: str | None, is_lost: bool
) -> None:
    source = Probe("mov,mp4", 1.0, 0.0, (VIDEO,), tags={name: before})
    found = Probe("mov,mp4", 1.0, 0.0, (VIDEO,), tags={} if after is None else {name: after})
    assert find_lost(plan_of(source), source, found) == ((f"the tag {name}",) if is_lost else ())


@pytest.mark.parametrize(
    "before,after,words",
    [
        (
            {"colour": Colour(transfer="bt709")},
            {"colour": Colour(transfer="smpte170m")},
            "the colour transfer bt709 of video #0 (h264), which is now smpte170m",
        ),
        (
            {"side_data": frozenset({"Mastering display metadata"})},
            {},
            "the mastering display of video #0 (h264)",
        ),
        (
            {"side_data": frozenset({"DOVI configuration record"})},
            {"side_data": frozenset({"Display Matrix"})},
            "the Dolby Vision metadata of video #0 (h264)",
        ),
    ],
)
def test_colours_and_side_data_of_the_picture_are_lost_if_the_output_has_others(
    before: dict[str, Any], after: dict[str, Any], words: str
) -> None:
    assert lost(changed(VIDEO, **before), changed(VIDEO, **after)) == (words,)
    assert lost(changed(VIDEO, **before), changed(VIDEO, **before)) == ()


@pytest.mark.parametrize(
    "container,format_name,marks,disabled",
    [
        ("mp4", "matroska,webm", (), {2, 3}),
        ("mp4", "matroska,webm", ("default",), set()),
        ("mkv", "matroska,webm", (), set()),
        ("mp4", "avi", (), set()),
    ],
)
def test_subtitles_are_disabled_only_if_the_source_says_that_none_is_a_default(
    container: str, format_name: str, marks: tuple[str, ...], disabled: set[int]
) -> None:
    second = changed(LINES, index=3, marks=frozenset(marks))
    source = Probe(format_name, 1.0, 0.0, (VIDEO, SOUND, LINES, second))
    assert disabled_tracks(plan_of(source, container)) == disabled
