"""Test that events without a request are logged, with the ids of job, engine and attempt."""

import logging

import pytest
import trio
from tests.api.kit import Farm
from trio.testing import MockClock


def log_records(caplog: pytest.LogCaptureFixture, text: str) -> list[tuple[object, object, object]]:
    return [
        (vars(r).get("job_id"), vars(r).get("engine_id"), vars(r).get("attempt"))
        for r in caplog.records
        if r.name == "distconvd.events" and r.getMessage().startswith(text)
    ]


async def test_a_vanished_engine_and_its_lost_job_are_logged(
    autojump_clock: MockClock, farm: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="distconvd")
    job = await farm.assigned()
    await trio.sleep(200)
    assert log_records(caplog, "engine.registered") == [(None, "e1", None)]
    assert log_records(caplog, "engine.offline") == [(None, "e1", None)]
    ((job_id, _, attempt),) = log_records(
        caplog, "job.requeued: Engine e1 did not renew the lease of attempt"
    )
    assert (job_id, attempt) == (job["job_id"], 1)
    await farm.beat()
    assert log_records(caplog, "engine.online") == [(None, "e1", None)]


async def test_a_job_that_fails_permanently_is_logged_with_its_reason(
    farm: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    job = await farm.assigned()
    report = {"attempt": 1, "error_message": "no film\nat all", "error_class": "input"}
    await farm.client.post(f"/jobs/{job['job_id']}/fail", report)
    assert log_records(caplog, "job.failed: no film") == [(job["job_id"], "e1", 1)]


async def test_requests_with_an_access_line_have_no_other_line(
    farm: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="distconvd")
    job = await farm.assigned()
    report = {"attempt": 1, "output_url": "http://h/o"}
    await farm.client.post(f"/jobs/{job['job_id']}/complete", report)
    assert log_records(caplog, "job.") == []
