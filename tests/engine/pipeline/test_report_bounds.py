"""A result is reported within the bounds of the daemon, whatever a file contains."""

import subprocess
from pathlib import Path

import msgspec
import pytest
from tests.engine.conftest import Run

from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.pipeline.report import within_bounds
from distconvd.model import CompleteReport, Limits, ReportedResult


def taken(result: ReportedResult) -> ReportedResult:
    """Return a result as the daemon decodes it; raises `ValidationError` if it would refuse it."""
    body = msgspec.json.encode(CompleteReport("file:///o", 1, "e1", result))
    assert len(body) < Limits.body_bytes
    report = msgspec.json.decode(body, type=CompleteReport)
    assert report.result is not None
    return report.result


def test_what_is_within_the_bounds_is_reported_as_it_is() -> None:
    result = ReportedResult(kept=["video #0 (h264)"] * 256, dropped=[], notes=["x" * 1024])
    assert within_bounds(result) == result


def test_a_long_list_says_how_many_entries_are_left_out() -> None:
    kept = taken(within_bounds(ReportedResult(kept=[f"#{n}" for n in range(300)]))).kept or []
    assert kept[:255] == [f"#{n}" for n in range(255)]
    assert kept[255:] == ["… and 45 more, which are left out of this list"]


def test_a_long_text_is_cut() -> None:
    [text] = taken(within_bounds(ReportedResult(dropped=["x" * 3000]))).dropped or []
    assert text == "x" * 1023 + "…"


def test_many_long_texts_fit_into_one_request() -> None:
    many = ["\x01" * 3000] * 300
    result = taken(within_bounds(ReportedResult(kept=many, dropped=many, damage=many)))
    assert "more, which are left out" in (result.kept or [])[-1]


@pytest.mark.e2e
async def test_hundreds_of_tracks_with_long_languages_are_converted_and_reported(
    tools: Tools, tmp_path: Path, run_job: Run
) -> None:
    (srt := tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nx\n")
    source = tmp_path / "many.mkv"
    words = ["-f", "lavfi", "-i", "testsrc2=s=64x64:r=5:d=1", "-i", str(srt), "-map", "0"]
    words += ["-map", "1"] * 300
    words += ["-c:v", "libx264", "-c:s", "srt", "-metadata:s:s:0", f"language={'x' * 3000}"]
    command = [tools.ffmpeg, "-v", "error", *words, str(source)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    report = await run_job(source, options={"container": "mkv"})
    result = taken(report.result)
    assert result.video_frames == 5
    assert "more, which are left out" in (result.kept or [])[-1]
