"""Check that valid sources which look suspicious cause no false alarm."""

from pathlib import Path

import pytest
from tests.engine.clips import Clips
from tests.engine.conftest import Run
from tests.engine.pipeline.odd import ODD
from tests.engine.pipeline.rows import AS_IT_IS, LIMITED_CONTAINERS, ODD_BUT_VALID, UNSUPPORTED
from tests.engine.pipeline.verdicts import Verdicts, failed, succeeded

from distconv_engine.failures import InputFault

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("name", list(ODD))
async def test_an_odd_but_valid_source_is_converted_and_verified(
    name: str, run_job: Run, clips: Clips, verdicts: Verdicts
) -> None:
    report = await run_job(clips.odd(name), "h264", options={"preset": "ultrafast"})
    assert report.result.size_bytes > 0
    assert "decodes" in report.result.checks
    verdicts.expect_verdict(ODD_BUT_VALID, name, AS_IT_IS, succeeded(report))


@pytest.mark.parametrize(
    "name,container,label",
    [
        ("edit-list", "mp4", "audio #1 (aac) copied"),
        ("edit-list", "mkv", "audio #1 (aac) to aac"),  # hidden audio must not become audible
        ("edit-list", "ts", "audio #1 (aac) to aac"),
        ("cover-art", "mkv", "cover #2 (mjpeg) copied"),
    ],
)
async def test_a_stream_that_a_container_stores_in_another_way_is_kept_that_way(
    name: str, container: str, label: str, run_job: Run, clips: Clips
) -> None:
    options = {"preset": "ultrafast", "container": container}
    report = await run_job(clips.odd(name), "h264", options=options)
    assert label in report.result.kept
    assert not report.result.dropped


@pytest.mark.parametrize("name,container", LIMITED_CONTAINERS)
async def test_what_a_container_does_not_support_is_refused_by_name_or_dropped_and_reported(
    name: str, container: str, run_job: Run, clips: Clips, verdicts: Verdicts
) -> None:
    options = {"preset": "ultrafast", "container": container}
    with pytest.raises(InputFault, match=f"{container} with h264 cannot hold") as caught:
        await run_job(clips.odd(name), "h264", options=options)
    verdicts.expect_verdict(UNSUPPORTED, name, f"to {container}, fail", failed(caught.value))
    report = await run_job(clips.odd(name), "h264", options={**options, "on_unsupported": "drop"})
    assert report.result.dropped
    assert all(lost in caught.value.message for lost in report.result.dropped)
    verdicts.expect_verdict(UNSUPPORTED, name, f"to {container}, drop", succeeded(report))


@pytest.mark.parametrize("name", ["ogg", "mpeg2-ps"])
async def test_recordings_concatenated_in_a_format_whose_clock_may_restart_are_converted_whole(
    name: str, run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    whole = clips.odd(name)
    twice = tmp_path / whole.name
    twice.write_bytes(whole.read_bytes() * 2)
    report = await run_job(twice, "h264", options={"preset": "ultrafast"})
    assert report.result.duration_s == pytest.approx(4.0, abs=0.1)
