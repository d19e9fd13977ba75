"""Check that what only looks like damage is converted whole, and noted."""

import subprocess
from pathlib import Path

import pytest
from tests.engine.clips import Clips
from tests.engine.conftest import Run
from tests.engine.pipeline.patched import PATCHED

from distconv_engine.failures import InputFault
from distconv_engine.ffmpeg.tools import Tools

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("name", list(PATCHED))
async def test_what_only_looks_like_damage_is_converted_and_noted(
    name: str, run_job: Run, clips: Clips, tools: Tools, tmp_path: Path
) -> None:
    row = PATCHED[name]
    is_old = row.old_notes is not None and tools.version.startswith("5.")
    path = tmp_path / f"clip.{row.suffix}"
    path.write_bytes(row.make(clips))
    report = await run_job(path, "h264", options={"preset": "ultrafast"})
    assert (report.result.notes or []) == (row.old_notes if is_old else row.notes)
    assert report.result.video_frames == row.frames
    assert bool(report.result.dropped) == bool({"empty-stream", "lost-attachment"} & {*row.notes})


async def test_no_sample_of_copied_alac_is_lost(
    run_job: Run, clips: Clips, tools: Tools, tmp_path: Path
) -> None:
    path = tmp_path / "clip.mka"
    path.write_bytes(PATCHED["alac-without-durations"].make(clips))
    report = await run_job(path, "h264")
    assert report.result.kept == ["audio #0 (alac) copied"]
    argv = [tools.ffmpeg, "-v", "error", "-i", report.output_url, "-f", "s16le", "-"]
    samples = subprocess.run(argv, capture_output=True, check=True).stdout
    assert len(samples) == 2 * 143_264


@pytest.mark.parametrize("words", ["testsrc2=s=320x180:r=25:d=1 -c:v libvpx -b:v 300k a.ivf",
                                   "anoisesrc=d=2:r=48000 -c:a flac a.flac"])  # fmt: skip
async def test_a_cut_file_whose_packets_an_old_ffprobe_cannot_flag_is_refused(
    words: str, run_job: Run, tools: Tools, tmp_path: Path
) -> None:
    command = ["-f", "lavfi", "-i", *words.split()]
    path = tmp_path / command.pop()
    subprocess.run([tools.ffmpeg, "-v", "error", *command, str(path)], check=True)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(InputFault):
        await run_job(path, "h264", options={"preset": "ultrafast"})
