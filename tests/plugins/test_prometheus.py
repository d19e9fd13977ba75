"""The listener `prometheus` passes the suite and counts outcomes with a bounded set of labels."""

import msgspec
import pytest
import trio
from tests.api.kit import SOURCE, Farm
from tests.api.test_metrics import scraped
from trio.testing import MockClock

from distconv_plugins.listener_prometheus import JobMetrics
from distconvd.dispatch import Event
from distconvd.dispatch.decision import EventKind
from distconvd.model import Job
from distconvd.testing.daemon import open_daemon
from distconvd.testing.listener_suite import Listener, ListenerSuite


class TestPrometheus(ListenerSuite):
    @pytest.fixture
    def listener(self) -> Listener:
        return JobMetrics()


async def test_the_ends_of_jobs_are_counted_with_their_class_and_codec() -> None:
    async with open_daemon() as daemon:
        farm = Farm(daemon)
        done = await farm.assigned(target_codec="libx265")
        result = {
            "size_bytes": 250, "source_size_bytes": 1000, "source_duration_s": 60.0, "wall_s": 20.0,
        }  # fmt: skip
        report = {"output_url": "http://h/o", "attempt": 1, "result": result}
        await daemon.client.post(f"/jobs/{done['job_id']}/complete", report)
        failed = await farm.assigned(target_codec="my-own", max_retries=3)
        report = {"attempt": 1, "error_message": "no film", "error_class": "input"}
        await daemon.client.post(f"/jobs/{failed['job_id']}/fail", report)
        gone = await farm.submit()
        await daemon.client.delete(f"/jobs/{gone['job_id']}")
        again = await farm.assigned(target_codec="av1")
        report = {"attempt": 1, "error_message": "broken", "error_class": "engine"}
        await daemon.client.post(f"/jobs/{again['job_id']}/fail", report)
        found = await scraped(daemon)
    ended = {
        key[1:]: n for key, n in found.samples.items() if key[0] == "distconv_jobs_ended_total"
    }
    assert ended == {
        ("codec=hevc", "error_class=none", "status=completed"): 1,
        ("codec=other", "error_class=input", "status=failed_permanently"): 1,
        ("codec=h264", "error_class=cancelled", "status=cancelled"): 1,
    }
    assert found("distconv_jobs_requeued_total", codec="av1") == 1
    assert found("distconv_job_size_ratio_sum", codec="hevc") == 0.25
    assert found("distconv_job_speed_sum", codec="hevc") == 3.0
    assert found("distconv_job_run_seconds_count", codec="hevc") == 1


async def test_the_wait_of_a_job_ends_with_its_first_assignment(
    autojump_clock: MockClock,
) -> None:
    async with open_daemon() as daemon:
        farm = Farm(daemon)
        await farm.submit(priority=2)
        await trio.sleep(20)
        await farm.beat()
        job = await farm.ask()
        assert job is not None
        report = {"attempt": 1, "error_message": "broken", "error_class": "engine"}
        await daemon.client.post(f"/jobs/{job['job_id']}/fail", report)
        await trio.sleep(70)
        await farm.beat()
        again = await farm.ask()
        assert again is not None
        assert again["attempt"] == 2
        found = await scraped(daemon)
    assert found("distconv_job_wait_seconds_sum", priority="2") == pytest.approx(20, abs=0.5)
    assert found("distconv_job_wait_seconds_count", priority="2") == 1


def test_the_number_of_series_is_bounded() -> None:
    counted = JobMetrics()
    kinds: list[EventKind] = ["job.completed", "job.assigned", "job.requeued"]
    for n in range(500):
        job = Job(f"{n}_0", SOURCE, f"word{n}", started_at=5, finished_at=6)
        for kind in kinds:
            counted.on_event(Event(kind, 5, f"{n}_0", f"e{n}", 1, msgspec.json.encode(job)))
    samples = [sample for family in counted.collect() for sample in family.samples]
    assert len(samples) < 100


def test_odd_numbers_from_an_engine_do_not_break_the_metrics() -> None:
    counted = JobMetrics()
    for result in (
        {"wall_s": 0, "source_duration_s": 5},
        {"size_bytes": 1, "source_size_bytes": 0},
    ):
        job = {"job_id": "1_0", "target_codec": "h264", "started_at": 9, "finished_at": 5}
        record = msgspec.json.encode(job | {"result": result})
        counted.on_event(Event("job.completed", 5, "1_0", "e1", 1, record))
    samples = {s.name: s.value for f in counted.collect() for s in f.samples}
    assert samples["distconv_job_run_seconds_sum"] == 0
    assert "distconv_job_speed_sum" not in samples
