"""Test that every encode counts once when a real daemon or the engine dies or hangs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.clips import Clips
from tests.engine.daemon import wait_until
from tests.engine.measured import Measured
from tests.engine.site import Site, open_site

pytestmark = pytest.mark.e2e


@pytest.fixture
def site(clips: Clips, measured: Measured, tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, measured) as found:
        found.start_engine("--source-root", str(clips.folder), "--output", str(tmp_path / "out"))
        yield found


def begin(site: Site, clips: Clips) -> str:
    job_id = site.submit(
        source_url=clips.long(20).as_uri(), target_codec="h264", options={"preset": "fast"}
    )
    site.wait_for_encode(job_id)
    return job_id


def check_done_once(site: Site, job_id: str) -> None:
    job = site.wait_for_end(job_id)
    assert (job["status"], job["attempt"], job["retries"]) == ("completed", 1, 0)
    attempts = site.ask(f"/jobs/{job_id}/attempts")
    assert [attempt["outcome"] for attempt in attempts] == ["completed"]
    assert len(list((site.folder / "out").iterdir())) == 1
    wait_until(lambda: not site.undelivered_reports())


def test_a_daemon_that_is_killed_and_restarted_gets_the_result_of_the_same_attempt(
    site: Site, clips: Clips
) -> None:
    job_id = begin(site, clips)
    children = {child.pid for child in site.ffmpegs()}
    site.daemon.kill()
    wait_until(site.undelivered_reports)
    site.start_daemon()
    assert children
    check_done_once(site, job_id)


def test_a_suspended_daemon_gets_the_result_once_it_answers_again(site: Site, clips: Clips) -> None:
    job_id = begin(site, clips)
    site.freeze_daemon()
    wait_until(site.undelivered_reports)
    site.thaw_daemon()
    check_done_once(site, job_id)


def test_the_next_start_of_a_killed_engine_reports_its_attempt_as_lost_without_a_retry(
    site: Site, clips: Clips
) -> None:
    job_id = begin(site, clips)
    site.stop_engine()
    site.start_engine("--source-root", str(clips.folder), "--output", str(site.folder / "out"))
    job = site.wait_for_end(job_id)
    assert (job["status"], job["attempt"], job["retries"]) == ("completed", 2, 0)
    attempts = site.ask(f"/jobs/{job_id}/attempts")
    assert [attempt["outcome"] for attempt in attempts] == ["lost", "completed"]
    wait_until(lambda: not list((site.work / "attempts").iterdir()))
    assert [path.suffix for path in (site.folder / "out").iterdir()] == [".mp4"]
