"""Check that a damaged source is converted if the job asks for it, and that each loss is listed."""

from pathlib import Path

import pytest
from tests.engine.clips import Clips
from tests.engine.conftest import Run
from tests.engine.pipeline.corrupt import CORRUPTIONS

from distconv_engine.failures import InputFault

pytestmark = pytest.mark.e2e
CONVERT = {"preset": "ultrafast", "on_damage": "convert"}
DAMAGED = {
    ("mkv", "cut-60"): ("the file: cut", "the end: "),
    ("mkv", "scrambled-block"): ("ffmpeg says: matroska", "the end: "),
    ("ts", "cut-60"): ("ffmpeg says: h264: ", "decod"),
    ("avi", "cut-60"): ("the file: cut", "video #0 (mpeg4): 25 packets of 51 missing"),
    ("mp4-moov-first", "zeroed-block"): ("blocks of zeros, the first at ", "ffmpeg says: "),
}


@pytest.mark.parametrize("kind,how", list(DAMAGED))
async def test_what_can_be_decoded_of_a_damaged_source_is_converted_and_the_rest_listed(
    kind: str, how: str, run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    path = tmp_path / f"clip.{kind.partition('-')[0]}"
    path.write_bytes(CORRUPTIONS[how](clips.container(kind).read_bytes()))
    with pytest.raises(InputFault):
        await run_job(path, "h264", options={"preset": "ultrafast"})
    report = await run_job(path, "h264", options=CONVERT)
    lost = "; ".join(report.result.damage)
    for words in DAMAGED[kind, how]:
        assert words in lost
    assert 20 < report.result.video_frames <= 50
    assert "decodes" in report.result.checks
    assert "packets-whole" not in report.result.checks


@pytest.mark.parametrize("how", ["empty", "text", "zeros", "header-only"])
async def test_what_is_no_film_fails_whatever_the_job_asks(
    how: str, run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(CORRUPTIONS[how](clips.container("mp4-moov-first").read_bytes()))
    with pytest.raises(InputFault):
        await run_job(path, "h264", options=CONVERT)
    assert not list((tmp_path / "out").glob("*"))


async def test_a_sound_source_is_checked_and_copied_as_ever(run_job: Run, clips: Clips) -> None:
    report = await run_job(clips.plain(), "h264", options=CONVERT)
    assert report.result.damage is None
    assert "packets-whole" in report.result.checks
    assert "audio #1 (aac) copied" in report.result.kept
