"""Every way to spoil a source, in every container, ends as an `input` failure: never a success."""

from pathlib import Path

import pytest
from tests.engine.clips import CONTAINERS, Clips
from tests.engine.conftest import Run
from tests.engine.spoil import SPOILED

from distconv_engine.failures import InputFault

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("how", list(SPOILED))
@pytest.mark.parametrize("kind", list(CONTAINERS))
async def test_a_spoiled_source_is_an_input_failure_and_leaves_nothing(
    kind: str, how: str, run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    whole = clips.container(kind).read_bytes()
    spoiled = tmp_path / f"clip.{kind.partition('-')[0]}"
    spoiled.write_bytes(SPOILED[how](whole))
    before = spoiled.stat().st_mtime_ns
    with pytest.raises(InputFault) as caught:
        await run_job(spoiled, "h264", options={"preset": "ultrafast"})
    assert "source" in caught.value.message.lower()
    assert not list((tmp_path / "out").glob("*"))
    assert spoiled.stat().st_mtime_ns == before
    assert spoiled.read_bytes() == SPOILED[how](whole)


@pytest.mark.parametrize("kind", list(CONTAINERS))
async def test_the_same_source_unspoiled_is_a_success(
    kind: str, run_job: Run, clips: Clips
) -> None:
    report = await run_job(clips.container(kind), "h264", options={"preset": "ultrafast"})
    assert report.result.video_frames == 50
    assert report.result.audio_codec in ("aac", "mp3", "opus")
