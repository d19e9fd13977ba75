"""Test engines over HTTP: heartbeats, who gets which job, draining, removing."""

from typing import Any

import pytest
import trio
from tests.api.kit import Farm, ok, problem
from trio.testing import MockClock


async def engine(farm: Farm, engine_id: str = "e1") -> dict[str, Any]:
    return ok(await farm.client.get(f"/engines/{engine_id}"))


async def test_heartbeats_are_merged_and_keep_a_benchmark_that_was_sent_separately(
    farm: Farm,
) -> None:
    ok(await farm.client.post("/engines/heartbeat", {"engine_id": "e1", "tags": ["gpu"]}))
    answer = ok(
        await farm.client.post(
            "/engines/benchmark_result", {"engine_id": "e1", "benchmark_time": 12.5}
        )
    )
    assert answer["message"] == "Benchmark result received from engine e1"
    ok(await farm.client.post("/engines/heartbeat", {"engine_id": "e1", "free_gb": 5}))
    found = await engine(farm)
    assert (found["benchmark_time"], found["tags"], found["free_gb"]) == (12.5, ["gpu"], 5)


async def test_a_benchmark_of_an_unknown_engine_is_404(farm: Farm) -> None:
    reply = await farm.client.post(
        "/engines/benchmark_result", {"engine_id": "e1", "benchmark_time": 1}
    )
    assert problem(reply, 404)["detail"] == "Engine not found"


async def test_an_engine_is_asked_for_a_benchmark_until_it_sends_one(farm: Farm) -> None:
    assert "benchmark_requested_at" not in await farm.beat()
    asked = ok(await farm.client.post("/engines/e1/benchmark"))["benchmark_requested_at"]
    assert asked > 0
    assert (await farm.beat())["benchmark_requested_at"] == asked
    report = {"engine_id": "e1", "benchmark_time": 3.0, "requested_at": asked}
    ok(await farm.client.post("/engines/benchmark_result", report))
    assert "benchmark_requested_at" not in await farm.beat()
    found = await engine(farm)
    assert (found["benchmark_time"], found["benchmark_requested_at"]) == (10.0, None)


async def test_frames_per_second_are_shown_with_the_engine(farm: Farm) -> None:
    await farm.beat(benchmark_fps={"h264": 104.2})
    assert (await engine(farm))["benchmark_fps"] == {"h264": 104.2}
    wrong = {"engine_id": "e1", "benchmark_fps": {"h264": -1}}
    reply = await farm.client.post("/engines/heartbeat", wrong)
    assert problem(reply, 400)["field"] == "benchmark_fps"


async def test_engines_are_listed_by_id_with_the_same_fields_as_alone(farm: Farm) -> None:
    for engine_id in ("b", "a", "Ж"):
        await farm.beat(engine_id)
    listed = (await farm.client.get("/engines/")).json()
    assert [e["engine_id"] for e in listed] == ["a", "b", "Ж"]
    assert listed[2] == await engine(farm, "%D0%96")


@pytest.mark.parametrize("verb", ["GET", "DELETE", "benchmark", "drain", "resume"])
async def test_an_unknown_engine_is_404(farm: Farm, verb: str) -> None:
    method, path = (verb, "/engines/x") if verb.isupper() else ("POST", f"/engines/x/{verb}")
    assert problem(await farm.client.request(method, path), 404)["detail"] == "Engine not found"


SIZES = [
    (0, "slow"), (49.999, "slow"), (50, "fast"), (99.999, "fast"), (100, "streams"), (5e5, "streams"),
]  # fmt: skip


@pytest.mark.parametrize("size,chosen", SIZES)
async def test_the_size_of_a_job_decides_its_engine_as_the_original_does(
    farm: Farm, size: float, chosen: str
) -> None:
    await farm.beat("slow", benchmark_time=300)
    await farm.beat("streams", benchmark_time=200, streaming_support=True)
    await farm.beat("fast", benchmark_time=100)
    await farm.beat("busy", benchmark_time=1, streaming_support=True, status="busy")
    ok(await farm.client.post("/engines/heartbeat", {"engine_id": "new", "status": "idle"}))
    await farm.submit(job_size=size)
    assert ok(await farm.client.post("/assign_job/", {}))["assigned_engine"] == chosen


async def test_a_large_job_goes_to_the_fastest_engine_if_none_streams(farm: Farm) -> None:
    await farm.beat("slow", benchmark_time=300)
    await farm.beat("fast", benchmark_time=100)
    await farm.submit(job_size=500)
    assert ok(await farm.client.post("/assign_job/", {}))["assigned_engine"] == "fast"


async def test_an_engine_that_asks_gets_only_what_the_policy_places_on_it(farm: Farm) -> None:
    await farm.beat("slow", benchmark_time=300)
    await farm.beat("fast", benchmark_time=100)
    small = await farm.submit(job_size=1)
    assert await farm.ask("fast") is None
    assert (await farm.job(small["job_id"]))["status"] == "pending"
    assert (await farm.ask("slow") or {})["job_id"] == small["job_id"]


async def test_codecs_and_tags_are_respected(farm: Farm) -> None:
    await farm.beat("e1", supported_codecs=["libx264"], tags=["cpu"])
    await farm.submit(target_codec="vp9")
    await farm.submit(target_codec="h264", requires=["gpu"])
    right = await farm.submit(target_codec="h264", requires=["cpu"])
    assert (await farm.ask() or {})["job_id"] == right["job_id"]


async def test_a_job_of_higher_priority_precedes_an_older_one(farm: Farm) -> None:
    made = [(await farm.submit(priority=p))["job_id"] for p in (0, 2, 1, 2)]
    await farm.beat(slots=4)
    given = [(await farm.ask() or {})["job_id"] for _ in range(4)]
    assert given == [made[1], made[3], made[2], made[0]]


async def test_a_draining_engine_gets_nothing_until_it_is_resumed(farm: Farm) -> None:
    await farm.beat()
    assert ok(await farm.client.post("/engines/e1/drain"))["status"] == "draining"
    await farm.submit()
    assert await farm.ask() is None
    assert (await farm.beat())["state"] == "draining"
    assert ok(await farm.client.post("/engines/e1/resume"))["status"] == "idle"
    assert await farm.ask() is not None


async def test_the_job_of_a_removed_engine_is_requeued_without_costing_a_retry(farm: Farm) -> None:
    job = await farm.assigned()
    assert ok(await farm.client.delete("/engines/e1"))["jobs"] == [job["job_id"]]
    again = await farm.job(job["job_id"])
    assert (again["status"], again["retries"]) == ("pending", 0)
    problem(await farm.client.get("/engines/e1"), 404)


async def test_a_silent_engine_is_offline_until_its_next_heartbeat(
    autojump_clock: MockClock, farm: Farm
) -> None:
    await farm.beat()
    await trio.sleep(70)
    assert (await engine(farm))["status"] == "offline"
    assert (await farm.beat())["state"] == "idle"
