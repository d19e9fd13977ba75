"""Test the messages between engine and daemon, and that what they report is durable."""

from typing import Any

import pytest
import trio
from tests.api.kit import Farm
from tests.push.kit import Wall
from trio.testing import MockClock


async def test_a_job_reaches_a_connected_engine_as_it_is_submitted(farm: Farm, wall: Wall) -> None:
    engine = await wall.ready()
    submitted = await farm.submit()
    job = await engine.job()
    assert (job["job_id"], job["status"], job["attempt"]) == (submitted["job_id"], "assigned", 1)
    assert job["assigned_engine"] == "e1"
    assert await engine.is_silent()


async def test_a_job_that_waits_reaches_an_engine_as_it_connects(farm: Farm, wall: Wall) -> None:
    submitted = await farm.submit()
    await farm.beat()
    engine = await wall.plug()
    assert (await engine.job())["job_id"] == submitted["job_id"]


async def test_an_engine_may_register_by_websocket_alone(farm: Farm, wall: Wall) -> None:
    submitted = await farm.submit()
    engine = await wall.plug("new")
    assert await engine.is_silent()
    reply = await engine.beat()
    assert reply["message"] == "Heartbeat received from engine new"
    assert (await engine.job())["job_id"] == submitted["job_id"]


async def test_every_free_slot_gets_a_job_and_no_more(farm: Farm, wall: Wall) -> None:
    engine = await wall.ready(slots=2)
    submitted = [(await farm.submit())["job_id"] for _ in range(3)]
    assert [(await engine.job())["job_id"] for _ in range(2)] == submitted[:2]
    assert await engine.is_silent()


async def test_a_completed_job_is_acked_and_the_next_one_comes(farm: Farm, wall: Wall) -> None:
    engine = await wall.ready()
    first, second = (await farm.submit())["job_id"], (await farm.submit())["job_id"]
    assert (await engine.job())["job_id"] == first
    body = {"output_url": "http://example.com/o.mp4", "attempt": 1}
    ack = await engine.ask("completed", body, job_id=first)
    assert ack["body"]["message"] == f"Job {first} marked as completed"
    assert ack["body"]["job"]["status"] == "completed"
    assert ack["body"]["job"]["assigned_engine"] == "e1"
    assert (await engine.job())["job_id"] == second
    assert await engine.ask("completed", body, job_id=first) == {**ack, "id": 3}


@pytest.mark.parametrize(
    "kind, body, status",
    [
        ("failed", {"error_message": "odd", "attempt": 1, "error_class": "input"}, "failed_perma"),
        ("released", {"engine_id": "e1", "attempt": 1}, "assigned"),
    ],
)
async def test_failures_and_releases_are_handled_as_over_http(
    kind: str, body: dict[str, Any], status: str, farm: Farm, wall: Wall
) -> None:
    engine = await wall.ready()
    job_id = (await farm.submit())["job_id"]
    await engine.job()
    ack = await engine.ask(kind, body, job_id=job_id)
    assert ack["body"]["message"].startswith(f"Job {job_id} ")
    assert (await farm.job(job_id))["status"].startswith(status)


async def test_a_report_without_an_attempt_number_is_accepted_only_from_an_engine_of_the_job(
    farm: Farm, wall: Wall
) -> None:
    """The socket identifies the sender, so omitting the number cannot end another engine's work."""
    first, other = await wall.ready("e1"), await wall.plug("e2")
    job_id = (await farm.submit())["job_id"]
    await first.job()
    for kind, body in (
        ("completed", {"output_url": "http://h/forged"}),
        ("failed", {"error_message": "forged"}),
    ):
        ack = await other.ask(kind, body, job_id=job_id)
        assert ack["problem"]["status"] == 403
        assert "not assigned to engine 'e2'" in ack["problem"]["detail"]
    assert (await farm.job(job_id))["status"] == "assigned"
    ack = await first.ask("completed", {"output_url": "http://h/o"}, job_id=job_id)
    assert ack["body"]["job"]["output_url"] == "http://h/o"


async def test_a_report_by_websocket_has_a_log_line_with_its_ids(
    farm: Farm, wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="distconvd")
    engine = await wall.ready()
    job_id = (await farm.submit())["job_id"]
    await engine.job()
    await engine.ask("completed", {"output_url": "http://h/o", "attempt": 1}, job_id=job_id)
    (record,) = [r for r in caplog.records if "marked as completed" in r.getMessage()]
    assert (vars(record)["job_id"], vars(record)["engine_id"], vars(record)["attempt"]) == (
        job_id, "e1", 1,
    )  # fmt: skip


async def test_progress_renews_the_lease_and_is_answered_with_a_verdict(
    farm: Farm, wall: Wall
) -> None:
    engine = await wall.ready()
    job_id = (await farm.submit())["job_id"]
    await engine.job()
    ack = await engine.ask("progress", {"attempt": 1, "fraction": 0.5}, job_id=job_id)
    assert ack["body"]["verdict"] == "keep"
    assert (await farm.job(job_id))["progress"]["fraction"] == 0.5


async def test_a_heartbeat_is_answered_with_a_verdict_on_each_attempt(
    farm: Farm, wall: Wall
) -> None:
    engine = await wall.ready()
    job_id = (await farm.submit())["job_id"]
    await engine.job()
    active = [{"job_id": job_id, "attempt": 1}, {"job_id": "0_0", "attempt": 1}]
    reply = await engine.beat(jobs=active)
    assert [verdict["verdict"] for verdict in reply["jobs"]] == ["keep", "unknown"]


async def test_an_open_websocket_alone_renews_no_lease(
    autojump_clock: MockClock, farm: Farm, wall: Wall
) -> None:
    engine = await wall.ready()
    job_id = (await farm.submit())["job_id"]
    await engine.job()
    await trio.sleep(130)  # virtual: the grace after the start, and a lease
    assert (await farm.job(job_id))["status"] == "pending"
    assert (await farm.client.get("/engines/e1")).json()["status"] == "offline"


async def test_a_cancel_is_pushed_immediately(farm: Farm, wall: Wall) -> None:
    engine = await wall.ready()
    job_id = (await farm.submit())["job_id"]
    await engine.job()
    await farm.client.delete(f"/jobs/{job_id}")
    assert await engine.receive() == {"type": "cancel", "job_id": job_id, "attempt": 1}


async def test_a_pause_and_its_end_are_pushed_immediately_and_keep_the_lease(
    farm: Farm, wall: Wall
) -> None:
    engine = await wall.ready()
    job_id = (await farm.submit())["job_id"]
    await engine.job()
    for paused in (True, False):
        await farm.client.patch(f"/jobs/{job_id}", {"paused": paused})
        record = {"type": "pause", "job_id": job_id, "attempt": 1, "paused": paused}
        assert await engine.receive() == record
        body = {"engine_id": "e1", "jobs": [{"job_id": job_id, "attempt": 1}]}
        (verdict,) = (await engine.ask("heartbeat", body))["body"]["jobs"]
        assert (verdict["verdict"], verdict["paused"]) == ("keep", paused)
    await farm.client.patch(f"/jobs/{job_id}", {"paused": False, "labels": {"a": "b"}})
    assert await engine.is_silent()
    assert (await farm.job(job_id))["status"] == "assigned"


async def test_pausing_an_unassigned_job_sends_no_message_to_an_engine(
    farm: Farm, wall: Wall
) -> None:
    engine = await wall.ready(status="starting")
    job_id = (await farm.submit())["job_id"]
    await farm.client.patch(f"/jobs/{job_id}", {"paused": True})
    assert await engine.is_silent()


async def test_a_request_for_a_benchmark_is_pushed_immediately_and_once(
    farm: Farm, wall: Wall
) -> None:
    engine = await wall.ready()
    reply = await farm.client.post("/engines/e1/benchmark")
    asked = reply.json()["benchmark_requested_at"]
    assert await engine.receive() == {"type": "benchmark", "requested_at": asked}
    await farm.client.post("/engines/e1/benchmark")
    await engine.beat(tags=["new"])
    assert await engine.is_silent()
    report = {"engine_id": "e1", "benchmark_time": 3.0, "requested_at": asked}
    await farm.client.post("/engines/benchmark_result", report)
    again = (await farm.client.post("/engines/e1/benchmark")).json()["benchmark_requested_at"]
    assert await engine.receive() == {"type": "benchmark", "requested_at": again}


async def test_a_drain_and_its_end_are_pushed_immediately_and_once(farm: Farm, wall: Wall) -> None:
    engine = await wall.ready()
    await farm.client.post("/engines/e1/drain")
    assert await engine.receive() == {"type": "drain", "draining": True}
    await farm.submit()
    await farm.client.post("/engines/e1/drain")
    assert await engine.is_silent()


async def test_resuming_is_pushed_and_work_continues(farm: Farm, wall: Wall) -> None:
    await farm.beat()
    await farm.client.post("/engines/e1/drain")
    engine = await wall.plug()
    await farm.submit()
    await farm.client.post("/engines/e1/resume")
    assert await engine.receive() == {"type": "drain", "draining": False}
    await engine.job()


async def test_a_conflicting_report_is_rejected_in_its_ack(farm: Farm, wall: Wall) -> None:
    engine = await wall.ready()
    job_id = (await farm.submit())["job_id"]
    await engine.job()
    body = {"output_url": "http://example.com/o.mp4", "attempt": 7}
    problem = (await engine.ask("completed", body, job_id=job_id))["problem"]
    assert (problem["status"], problem["type"]) == (409, "urn:distconv:problem:conflict")
    assert "Attempt 7 was never assigned" in problem["detail"]


@pytest.mark.parametrize(
    "kind, body, fields, status, words",
    [
        ("completed", {"attempt": 1}, {"job_id": "1_1"}, 400, "'output_url' must be a string."),
        ("completed", {"output_url": "x"}, {"job_id": "1_1"}, 404, "Job not found"),
        ("completed", {"output_url": "x"}, {}, 400, "job_id"),
        (
            "progress",
            {"attempt": 1, "engine_id": "e2"},
            {"job_id": "1_1"},
            400,
            "websocket of 'e1'",
        ),
        ("heartbeat", {"engine_id": "e2"}, {}, 400, "websocket of 'e1'"),
        ("heartbeat", {"engine_id": "e1", "slots": 0}, {}, 400, "'slots' must be from 1"),
        ("heartbeat", [1], {}, 400, "must be a JSON object"),
        ("greeting", {}, {}, 400, "greeting"),
    ],
)
async def test_an_invalid_message_is_rejected_in_its_ack_and_the_socket_stays_open(
    kind: str, body: object, fields: dict[str, Any], status: int, words: str, wall: Wall
) -> None:
    engine = await wall.plug()
    problem = (await engine.ask(kind, body, **fields))["problem"]
    assert problem["status"] == status
    assert words in problem["detail"]
    await engine.beat()


async def test_the_number_of_open_websockets_is_a_metric(farm: Farm, wall: Wall) -> None:
    engine = await wall.ready()
    await wall.ready("e2")
    await engine.socket.aclose()
    metrics = (await farm.client.get("/metrics")).body.decode()
    assert "\ndistconv_websocket_sessions 1.0\n" in metrics
