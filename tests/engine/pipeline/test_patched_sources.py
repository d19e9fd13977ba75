"""Check that what only looks like damage is converted whole, and noted."""

from pathlib import Path

import pytest
from tests.engine.clips import Clips
from tests.engine.conftest import Run
from tests.engine.pipeline.patched import PATCHED

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("name", list(PATCHED))
async def test_what_only_looks_like_damage_is_converted_and_noted(
    name: str, run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    row = PATCHED[name]
    path = tmp_path / f"clip.{row.suffix}"
    path.write_bytes(row.make(clips))
    report = await run_job(path, "h264", options={"preset": "ultrafast"})
    assert report.result.notes == row.notes
    assert report.result.video_frames == row.frames
    assert bool(report.result.dropped) == bool({"empty-stream", "lost-attachment"} & {*row.notes})
