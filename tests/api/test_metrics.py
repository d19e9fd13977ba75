"""Test `GET /metrics`: correct numbers, bounded labels, and metrics of plugins."""

import math
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from tests.api.kit import Farm
from trio.testing import MockClock

from distconvd.core.metrics import ENGINES_SHOWN_MAX, OTHERS
from distconvd.testing.daemon import Daemon, open_daemon


class Scrape:
    """The metrics as Prometheus would read them."""

    def __init__(self, text: bytes) -> None:
        self.samples = {
            (sample.name, *(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples[name, *(f"{k}={v}" for k, v in sorted(labels.items()))]

    def labels_of(self, name: str) -> set[str]:
        return {key[1] for key in self.samples if key[0] == name}


async def scraped(daemon: Daemon) -> Scrape:
    reply = await daemon.client.get("/metrics")
    assert reply.status == 200, reply.body
    return Scrape(reply.body)


async def test_the_age_of_the_oldest_queued_job_is_a_metric_by_priority(
    autojump_clock: MockClock, farm: Farm
) -> None:
    await farm.submit(priority=1)
    await trio.sleep(30)
    await farm.submit()
    await farm.submit(priority=1)
    await trio.sleep(60)
    found = await scraped(farm.daemon)
    oldest_by_priority = [found("distconv_queue_age_seconds", priority=str(n)) for n in range(3)]
    assert oldest_by_priority == [pytest.approx(60, abs=1), pytest.approx(90, abs=1), 0]
    await farm.beat()
    await farm.ask()
    found = await scraped(farm.daemon)
    assert found("distconv_queue_age_seconds", priority="1") == pytest.approx(60, abs=1)


async def test_commits_are_timed_and_their_size_is_counted(farm: Farm) -> None:
    before = await scraped(farm.daemon)
    body = b'{"source_url":"http://h/a","target_codec":"h264"}\n' * 30
    await farm.client.post("/jobs/", body, content_type="application/x-ndjson")
    after = await scraped(farm.daemon)
    assert after("distconv_commit_seconds_count") == before("distconv_commit_seconds_count") + 1
    assert after("distconv_commit_changes_sum") == before("distconv_commit_changes_sum") + 30
    assert after("distconv_commit_seconds_sum") > 0


async def test_an_expired_lease_is_counted(autojump_clock: MockClock, farm: Farm) -> None:
    await farm.assigned()
    assert (await scraped(farm.daemon))("distconv_leases_expired_total") == 0
    await trio.sleep(200)
    assert (await scraped(farm.daemon))("distconv_leases_expired_total") == 1


async def test_the_speed_of_ffmpeg_is_a_metric_by_engine_while_it_runs(farm: Farm) -> None:
    await farm.submit()
    await farm.submit()
    await farm.submit()
    await farm.beat("e1", slots=2)
    await farm.beat("e2")
    one, two, three = [await farm.ask(e) for e in ("e1", "e1", "e2")]
    assert one and two and three  # noqa: PT018
    assert (await scraped(farm.daemon)).labels_of("distconv_ffmpeg_speed") == set()
    for job, speed in ((one, 1.5), (two, 2.0), (three, None)):
        body = {"attempt": 1, "fraction": 0.1, "speed": speed, "phase": "encode"}
        await farm.client.post(f"/jobs/{job['job_id']}/progress", body)
    found = await scraped(farm.daemon)
    assert found("distconv_ffmpeg_speed", engine="e1") == 3.5
    assert found.labels_of("distconv_ffmpeg_speed") == {"engine=e1"}
    beat = {"jobs": [{"job_id": three["job_id"], "attempt": 1, "progress": {"speed": 0.5}}]}
    await farm.beat("e2", **beat)
    assert (await scraped(farm.daemon))("distconv_ffmpeg_speed", engine="e2") == 0.5
    await farm.client.post(f"/jobs/{one['job_id']}/complete", {"output_url": "http://h/o"})
    assert (await scraped(farm.daemon))("distconv_ffmpeg_speed", engine="e1") == 2.0


@pytest.mark.slow
async def test_engines_beyond_a_bound_share_one_series(farm: Farm) -> None:
    count = ENGINES_SHOWN_MAX + 3
    body = b'{"source_url":"http://h/a","target_codec":"h264","job_size":60}\n' * count
    await farm.client.post("/jobs/", body, content_type="application/x-ndjson")
    core = farm.daemon.parts.dispatcher.state
    for n in range(count):
        await farm.beat(f"e{n}")
        job = await farm.ask(f"e{n}")
        assert job
        report = {"attempt": 1, "speed": 1.0}
        await farm.client.post(f"/jobs/{job['job_id']}/progress", report)
    assert len(core.progress) == count
    found = await scraped(farm.daemon)
    assert len(found.labels_of("distconv_ffmpeg_speed")) == ENGINES_SHOWN_MAX + 1
    assert found("distconv_ffmpeg_speed", engine=OTHERS) == 3.0


async def test_wrong_keys_and_latencies_are_counted(farm: Farm) -> None:
    await farm.daemon.client_with({"x-api-key": "no"}).get("/jobs/")
    await farm.submit()
    found = await scraped(farm.daemon)
    assert found("distconv_wrong_keys_total") == 1
    assert found("distconv_http_request_seconds_count", route="/jobs") == 2
    assert found("distconv_http_request_seconds_bucket", route="/jobs", le="+Inf") == 2


PLUGIN = """
from prometheus_client import CollectorRegistry, Counter, Gauge
from distconvd import hookimpl

class Mine:
    def __init__(self):
        self.registry = CollectorRegistry()
        self.seen = Counter("site_submissions", "Seen.", registry=self.registry)
        self.collect = self.registry.collect

    def on_event(self, event):
        if event.kind == "job.submitted":
            self.seen.inc()

class Fails:
    def collect(self):
        raise RuntimeError("a bug of the plugin")

class Taken:
    def __init__(self):
        self.registry = CollectorRegistry()
        Gauge("distconv_jobs", "Not its own.", registry=self.registry)
        self.collect = self.registry.collect

class Nonsense:
    def collect(self):
        return ["no metric"]

class Endless:
    def collect(self):
        registry = CollectorRegistry()
        gauge = Gauge("endless", "Labels that grow.", ["n"], registry=registry)
        for n in range(10_001):
            gauge.labels(str(n))
        return registry.collect()

@hookimpl
def distconvd_register_metrics(registrar):
    for kind in (Fails, Taken, Nonsense, Endless, Mine):
        registrar.add(kind.__name__, lambda context, kind=kind: kind())
"""


async def test_a_plugin_s_metrics_are_shown_and_bad_ones_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN)
    async with open_daemon(plugins=[str(plugin)]) as daemon:
        await Farm(daemon).submit()
        await scraped(daemon)
        found = await scraped(daemon)
    assert found("site_submissions_total") == 1
    assert found("distconv_jobs", status="pending") == 1
    for name in ("Fails", "Taken", "Nonsense", "Endless"):
        assert found("distconv_metrics_failures_total", metrics=name) == 2
        warnings = [
            r for r in caplog.records if f"the metrics {name} cannot be shown" in r.getMessage()
        ]
        assert len(warnings) == 1  # not at every scrape
    assert found("distconv_metrics_failures_total", metrics="Mine") == 0
    assert not any(name == "endless" for name, *_ in found.samples)


async def test_every_metric_value_is_a_number(farm: Farm) -> None:
    await farm.assigned()
    found = await scraped(farm.daemon)
    assert not any(math.isnan(value) for value in found.samples.values())
