"""Test `distconv doctor`, `top` and `distconvd audit` with a real daemon and engine."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.daemon import kit
from tests.engine.daemon import wait_until
from tests.engine.measured import Measured
from tests.engine.site import WAIT_S, Site, open_site

from distconv_client import Client
from distconv_client.cluster import FarmWatcher
from distconv_client.config import Settings
from distconv_client.doctor import DoctorConfig, run_checks

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def site(measured: Measured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site"), measured) as found:
        shared = found.folder / "shared"
        shared.mkdir()
        found.start_engine("--source-root", str(shared))
        wait_until(lambda: any(e["benchmark_time"] for e in found.ask("/engines/")), WAIT_S)
        yield found


def test_top_and_audit_show_a_working_site_as_it_is(site: Site) -> None:
    job_id = site.submit(source_url=(site.folder / "shared" / "none.mp4").as_uri(), max_retries=0)
    site.wait_for_end(job_id)
    with Client(site.url, kit.KEY) as client:
        watcher = FarmWatcher(client)
        watcher.refresh_snapshot()
    assert watcher.snapshot is not None
    assert watcher.snapshot.status.jobs["failed_permanently"] == 1
    assert [engine.engine_id for engine in watcher.snapshot.engines] == ["e1"]
    done = kit.run("audit", "--url", site.url, cwd=site.folder, DISTCONV_API_KEY=kit.KEY)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{site.url}: 1 job, 1 engine: clean\n"


def test_the_doctors_clip_makes_its_round_trip_by_http_and_by_file_and_a_dead_engine_is_noticed(
    site: Site,
) -> None:
    doctor_config = DoctorConfig(Settings(site.url, kit.KEY), ask_engine=lambda work_dir: None)
    results = {one.check: one for one in run_checks(doctor_config)}
    assert {one.outcome for one in results.values()} == {"ok", "skip"}
    assert results["round trip"].detail.startswith("e1 encoded 25 frames to h264 in ")
    shared = replace(doctor_config, clip_dir=site.folder / "shared")
    assert list(run_checks(shared))[-1].outcome == "ok"
    assert list((site.folder / "shared").iterdir()) == []
    outside = list(run_checks(replace(doctor_config, clip_dir=site.folder)))[-1]
    assert "it is outside of its --source-root" in outside.detail
    site.stop_engine()
    dead = list(run_checks(replace(doctor_config, timeout_s=1.0)))[-1]
    assert (dead.outcome, " after 1 s" in dead.detail) == ("fail", True)
    jobs = site.daemon.jobs().values()
    assert sorted(job["status"] for job in jobs) == [
        "cancelled", "completed", "completed", "failed_permanently", "failed_permanently",
    ]  # fmt: skip
