"""`distconv doctor`, `top` and `distconvd audit` at a real site: a daemon and an engine with ffmpeg."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.daemon import kit
from tests.engine.daemon import wait_until
from tests.engine.site import WAIT_S, Site, open_site

from distconv_client import Client
from distconv_client.cluster import Lookout
from distconv_client.config import Settings
from distconv_client.doctor import Patient, examine

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def site(benchmark: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site"), benchmark) as found:
        shared = found.folder / "shared"
        shared.mkdir()
        found.start_engine("--source-root", str(shared))
        wait_until(lambda: any(e["benchmark_time"] for e in found.ask("/engines/")), WAIT_S)
        yield found


def test_a_working_site_is_seen_as_it_is_and_audited_clean(site: Site) -> None:
    job_id = site.submit(source_url=(site.folder / "shared" / "none.mp4").as_uri(), max_retries=0)
    site.wait_for_end(job_id)
    with Client(site.url, kit.KEY) as client:
        lookout = Lookout(client)
        lookout.look()
    assert lookout.farm is not None
    assert lookout.farm.status.jobs["failed_permanently"] == 1
    assert [engine.engine_id for engine in lookout.farm.engines] == ["e1"]
    done = kit.run("audit", "--url", site.url, cwd=site.folder, DISTCONV_API_KEY=kit.KEY)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{site.url}: 1 jobs, 1 engines: clean\n"


def test_a_clip_goes_to_a_real_engine_and_back_by_either_way_and_a_dead_engine_is_noticed(
    site: Site,
) -> None:
    patient = Patient(Settings(site.url, kit.KEY), ask_engine=lambda work_dir: None)
    results = {one.check: one for one in examine(patient)}
    assert {one.outcome for one in results.values()} == {"ok", "skip"}
    assert results["round trip"].told.startswith("e1 made 25 frames of h264 in ")
    shared = replace(patient, clip_dir=site.folder / "shared")
    assert list(examine(shared))[-1].outcome == "ok"
    assert list((site.folder / "shared").iterdir()) == []
    outside = list(examine(replace(patient, clip_dir=site.folder)))[-1]
    assert "it is outside of its --source-root" in outside.told
    site.stop_engine()
    dead = list(examine(replace(patient, timeout_s=1.0)))[-1]
    assert (dead.outcome, " after 1 s" in dead.told) == ("fail", True)
    jobs = site.daemon.jobs().values()
    assert sorted(job["status"] for job in jobs) == [
        "cancelled", "completed", "completed", "failed_permanently", "failed_permanently",
    ]  # fmt: skip
