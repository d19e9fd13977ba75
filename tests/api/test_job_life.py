"""Test a job's life over HTTP: reports, fencing, cancelling, retrying, changing, history."""

from typing import Any

import pytest
import trio
from tests.api.kit import Farm, ok, problem
from trio.testing import MockClock

from distconvd.testing.daemon import Reply


async def report(farm: Farm, job: dict[str, Any], kind: str, **body: Any) -> Reply:
    fields: dict[str, Any] = {
        "complete": {"output_url": "http://h/out.mp4"},
        "fail": {"error_message": "no luck"},
        "release": {"engine_id": "e1", "attempt": 1},
        "progress": {"attempt": 1, "fraction": 0.5},
    }
    return await farm.client.post(f"/jobs/{job['job_id']}/{kind}", fields[kind] | body)


async def test_a_completion_stores_the_result_that_the_engine_verified(farm: Farm) -> None:
    job = await farm.assigned()
    result = {"size_bytes": 10, "sha256": "a" * 64, "video_frames": 250, "checks": ["decodes"]}
    done = ok(await report(farm, job, "complete", attempt=1, engine_id="e1", result=result))["job"]
    assert (done["status"], done["result"]) == ("completed", result)
    assert done["finished_at"] >= done["started_at"] >= done["created_at"]
    assert (done["assigned_engine"], done["output_url"]) == ("e1", "http://h/out.mp4")


@pytest.mark.parametrize("kind", ["complete", "fail"])
async def test_a_repeated_report_gets_the_same_answer(farm: Farm, kind: str) -> None:
    job = await farm.assigned()
    first = ok(await report(farm, job, kind, attempt=1, engine_id="e1"))
    stored = farm.stored()
    assert ok(await report(farm, job, kind, attempt=1, engine_id="e1")) == first
    assert farm.stored() == stored


@pytest.mark.parametrize("kind", ["complete", "fail", "release", "progress"])
@pytest.mark.parametrize(
    "stale", [{"attempt": 0}, {"attempt": 2}, {"attempt": 1, "engine_id": "e2"}]
)
async def test_a_report_of_an_attempt_that_is_over_is_409_and_changes_nothing(
    farm: Farm, kind: str, stale: dict[str, Any]
) -> None:
    job = await farm.assigned()
    before = farm.stored()
    problem(await report(farm, job, kind, **stale), 409)
    assert farm.stored() == before


@pytest.mark.parametrize("kind", ["complete", "fail", "release", "progress"])
async def test_a_report_on_a_cancelled_job_is_409(farm: Farm, kind: str) -> None:
    job = await farm.assigned()
    ok(await farm.client.delete(f"/jobs/{job['job_id']}"))
    before = farm.stored()
    problem(await report(farm, job, kind, attempt=1), 409)
    assert farm.stored() == before


async def test_a_released_job_costs_no_retry(farm: Farm) -> None:
    job = await farm.assigned()
    reply = ok(await report(farm, job, "release", reason="draining"))
    assert reply["message"] == f"Job {job['job_id']} re-queued"
    assert (reply["job"]["status"], reply["job"]["retries"]) == ("pending", 0)


async def test_progress_is_answered_with_a_verdict_and_shown_on_the_job(farm: Farm) -> None:
    job = await farm.assigned()
    verdict = ok(await report(farm, job, "progress", fraction=7.0, fps=99.5, phase="encode"))
    assert verdict == {"job_id": job["job_id"], "attempt": 1, "verdict": "keep", "paused": False}
    shown = (await farm.job(job["job_id"]))["progress"]
    assert (shown["fraction"], shown["fps"], shown["phase"]) == (1.0, 99.5, "encode")


async def test_cancelling_ends_a_job_notifies_its_engine_and_can_be_repeated(farm: Farm) -> None:
    job = await farm.assigned()
    first = await farm.client.delete(f"/jobs/{job['job_id']}")
    assert ok(first)["status"] == "cancelled"
    assert (await farm.client.delete(f"/jobs/{job['job_id']}")).body == first.body
    beat = await farm.beat(jobs=[{"job_id": job["job_id"], "attempt": 1}])
    assert [v["verdict"] for v in beat["jobs"]] == ["cancel"]


async def test_a_heartbeat_gets_a_verdict_on_each_job_that_it_names(farm: Farm) -> None:
    job = await farm.assigned()
    active = [{"job_id": job["job_id"], "attempt": 1}, {"job_id": "1_0", "attempt": 3}]
    beat = await farm.beat(jobs=active)
    assert [(v["job_id"], v["verdict"]) for v in beat["jobs"]] == [
        (job["job_id"], "keep"),
        ("1_0", "unknown"),
    ]
    legacy = await farm.beat(local_job_queue=[job["job_id"], "1_0"])
    assert [v["verdict"] for v in legacy["jobs"]] == ["keep", "unknown"]


async def test_only_an_ended_job_can_be_retried_and_gets_all_its_retries_back(farm: Farm) -> None:
    job = await farm.assigned(max_retries=0)
    path = f"/jobs/{job['job_id']}/retry"
    problem(await farm.client.post(path), 409)
    ok(await report(farm, job, "fail", attempt=1))
    assert (await farm.job(job["job_id"]))["status"] == "failed_permanently"
    again = ok(await farm.client.post(path))
    assert (again["status"], again["retries"], again["error_message"]) == ("pending", 0, None)
    assert again["attempt"] == 1
    problem(await farm.client.post(path), 409)


async def test_a_completed_job_cannot_be_cancelled(farm: Farm) -> None:
    job = await farm.assigned()
    ok(await report(farm, job, "complete"))
    problem(await farm.client.delete(f"/jobs/{job['job_id']}"), 409)


async def test_a_patch_changes_only_the_fields_that_it_names(farm: Farm) -> None:
    job = await farm.submit(priority=1, labels={"a": "b"})
    path = f"/jobs/{job['job_id']}"
    changed = ok(await farm.client.patch(path, {"priority": 2, "unknown": 1}))
    assert (changed["priority"], changed["labels"]) == (2, {"a": "b"})
    assert ok(await farm.client.patch(path, {"labels": {}}))["labels"] == {}
    assert ok(await farm.client.patch(path, {}))["priority"] == 2
    ok(await farm.client.delete(path))
    problem(await farm.client.patch(path, {"priority": 0}), 409)


async def test_a_delayed_job_waits_for_its_time_and_can_be_released_early(
    autojump_clock: MockClock, farm: Farm
) -> None:
    job = await farm.submit(not_before=1_900_000_000_000)
    await farm.beat()
    assert await farm.ask() is None
    why = ok(await farm.client.get(f"/jobs/{job['job_id']}/why"))
    assert "its not_before time" in why["summary"]
    ok(await farm.client.patch(f"/jobs/{job['job_id']}", {"not_before": None}))
    assert (await farm.ask() or {})["job_id"] == job["job_id"]


async def test_a_paused_job_is_not_assigned_until_it_is_resumed(farm: Farm) -> None:
    job = await farm.submit()
    path = f"/jobs/{job['job_id']}"
    ok(await farm.client.patch(path, {"paused": True}))
    await farm.beat()
    assert await farm.ask() is None
    assert "paused" in ok(await farm.client.get(f"{path}/why"))["summary"]
    ok(await farm.client.patch(path, {"paused": False}))
    assert await farm.ask() is not None


async def test_every_attempt_is_kept_as_history(autojump_clock: MockClock, farm: Farm) -> None:
    job = await farm.assigned()
    path = f"/jobs/{job['job_id']}"
    ok(await report(farm, job, "fail", attempt=1, error_class="engine", log_tail="boom"))
    assert await farm.ask() is not None
    attempts: Any = ok(await farm.client.get(f"{path}/attempts"))
    assert [(a["number"], a["engine_id"], a["outcome"]) for a in attempts] == [
        (1, "e1", "failed"),
        (2, "e1", "running"),
    ]
    assert (attempts[0]["message"], attempts[0]["log_tail"]) == ("no luck", "boom")
    assert attempts[0]["requeued"]
    ok(await report(farm, job, "complete", attempt=2))
    attempts = ok(await farm.client.get(f"{path}/attempts"))
    assert attempts[1]["outcome"] == "completed"


async def test_why_has_a_sentence_for_every_state(farm: Farm) -> None:
    job = await farm.submit(target_codec="av1")
    path = f"/jobs/{job['job_id']}"

    async def why() -> str:
        answer = ok(await farm.client.get(f"{path}/why"))
        assert answer["job_id"] == job["job_id"]
        summary: str = answer["summary"]
        return summary

    assert "No engine has registered" in await why()
    await farm.beat("old", supported_codecs=["h264"])
    assert "supports the codec av1" in await why()
    await farm.beat()
    assert "first in the queue" in await why()
    await farm.ask()
    assert "It is assigned to engine e1: " in await why()
    ok(await report(farm, job, "complete"))
    assert "It is done" in await why()


async def test_a_very_long_error_message_is_truncated_and_not_rejected(farm: Farm) -> None:
    job = await farm.assigned(max_retries=0)
    done = ok(await report(farm, job, "fail", error_message="ü" * 20_000, log_tail="l" * 50_000))
    assert len(done["job"]["error_message"]) == 8192


async def test_a_job_whose_lease_expires_goes_to_another_engine(
    autojump_clock: MockClock, farm: Farm
) -> None:
    job = await farm.assigned()
    await trio.sleep(30)
    await farm.beat("e2")
    await trio.sleep(35)
    assert (await farm.ask("e2") or {})["job_id"] == job["job_id"]
    problem(await report(farm, job, "complete", attempt=1, engine_id="e1"), 409)
