"""Sound sources that look suspicious: none may raise a false alarm."""

import pytest
from tests.engine.clips import Clips
from tests.engine.conftest import Run
from tests.engine.odd import ODD

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("name", list(ODD))
async def test_an_odd_but_sound_source_is_converted_and_verified(
    name: str, run_job: Run, clips: Clips
) -> None:
    report = await run_job(clips.odd(name), "h264", options={"preset": "ultrafast"})
    assert report.result.size_bytes > 0
    assert "decodes" in report.result.checks
