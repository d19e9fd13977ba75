"""A job through the real pipeline, with a real ffmpeg."""

from pathlib import Path

import pytest
from tests.engine.clips import Clips
from tests.engine.conftest import Run


@pytest.mark.parametrize("codec", ["h264", "h265", "vp8", "vp9", "av1"])
@pytest.mark.e2e
async def test_each_codec_is_encoded_verified_and_published(
    codec: str, run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    report = await run_job(clips.plain(), codec)
    result = report.result
    assert result.video_frames == 25
    assert result.width == 160
    published = Path(report.output_url.removeprefix("file://"))
    assert published.parent == tmp_path / "out"
    assert published.stat().st_size == result.size_bytes
    assert {"frames", "durations", "container-complete", "source-unchanged"} <= set(result.checks)
