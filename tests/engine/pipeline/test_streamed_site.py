"""Run a streamed job with a real daemon and engine: from its media store and back into it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.daemon.kit import KEY
from tests.engine.clips import Clips
from tests.engine.measured import Measured
from tests.engine.site import Site, open_site

pytestmark = pytest.mark.e2e
HEADERS = {"X-API-Key": KEY}


@pytest.fixture
def site(measured: Measured, tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, measured) as found:
        found.start_engine("--stream-min-mb", "0.5")
        yield found


def put(site: Site, clip: Path, content: bytes | None = None) -> str:
    url = f"{site.url}/media/in/{clip.name}"
    httpx.put(url, content=content or clip.read_bytes(), headers=HEADERS).raise_for_status()
    return url


def test_a_large_job_goes_from_store_to_store_and_leaves_nothing_on_the_engine(
    site: Site, clips: Clips
) -> None:
    source = put(site, clips.container("mkv"))
    job_id = site.submit(source_url=source, target_codec="h264", options={"preset": "ultrafast"})
    job = site.wait_for_end(job_id)
    assert job["status"] == "completed", job
    got = httpx.get(job["output_url"], headers=HEADERS).raise_for_status().content
    result = job["result"]
    assert (len(got), hashlib.sha256(got).hexdigest()) == (result["size_bytes"], result["sha256"])
    assert {"target-read-back", "source-unchanged", "frames"} <= set(result["checks"])
    assert result["notes"] == ["streamed", "fragmented"]
    stored = site.folder / "media" / job_id / "mkv-2.mp4"
    assert stored.read_bytes() == got


def test_a_cut_source_is_refused_and_none_of_its_output_is_stored(site: Site, clips: Clips) -> None:
    whole = clips.container("mp4-moov-first").read_bytes()
    source = put(site, clips.container("mp4-moov-first"), whole[: len(whole) * 6 // 10])
    job = site.wait_for_end(site.submit(source_url=source, target_codec="h264"))
    assert (job["status"], job["error_class"]) == ("failed_permanently", "input")
    stored = [path for path in (site.folder / "media").rglob("*") if path.is_file()]
    assert [path.parent.name for path in stored if "uploads" not in str(path)] == ["in"]
