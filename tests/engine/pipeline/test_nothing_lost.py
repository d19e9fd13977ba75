"""Check that titles, languages, marks and tags are kept, and that what a container cannot keep is listed.

The outputs are read by the bundled ffprobe, whatever ffmpeg the engine has.
"""

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.engine.clips import Clips
from tests.engine.conftest import Run

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


def probe(path: Path) -> dict[str, Any]:
    argv = [find_tools(None).ffprobe, "-v", "error", "-of", "json", "-show_streams", "-show_format"]
    found: dict[str, Any] = json.loads(subprocess.check_output([*argv, str(path)]))
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


def phone(clips: Clips) -> Path:
    """A clip with the tags of an iPhone's."""
    tags = [f"-metadata {name}={value}" for name, value in PHONE.items()]
    options = f"-movflags use_metadata_tags -metadata creation_time={MOMENT} {' '.join(tags)}"
    return made(clips, "phone.mov", f"{_AV} {_H264} -c:a aac {options}")
