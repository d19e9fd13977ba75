"""Test waiting for a job's change and for work: prompt, bounded, and without losing a job."""

import pytest
import trio
from tests.api.kit import Farm, later, ok
from trio.testing import MockClock

from distconv_plugins.stores.memory import MemoryStore
from distconvd.testing.daemon import open_daemon


async def test_an_engine_that_waits_gets_a_job_the_moment_it_is_submitted(
    autojump_clock: MockClock, farm: Farm, nursery: trio.Nursery
) -> None:
    await farm.beat()
    asked = await later(nursery, farm.client.post, "/assign_job/", {"engine_id": "e1"}, prefer="wait=30")  # fmt: skip
    assert not asked.is_answered
    submitted_at_s = trio.current_time()
    job = await farm.submit()
    given = ok(await asked.wait())
    assert (given["job_id"], given["assigned_engine"]) == (job["job_id"], "e1")
    assert asked.answered_at_s - submitted_at_s < 0.01


async def test_a_long_poll_for_work_gets_204_on_timeout(
    autojump_clock: MockClock, farm: Farm
) -> None:
    await farm.beat()
    began_s = trio.current_time()
    assert await farm.ask(prefer="wait=20") is None
    assert 20 <= trio.current_time() - began_s < 20.5


@pytest.mark.parametrize(
    "prefer", ["", "respond-async", "wait=soon", "wait=-5", "wait=0", 'wait="9', "await = 9"]
)
async def test_without_prefer_wait_the_answer_is_immediate(
    autojump_clock: MockClock, farm: Farm, prefer: str
) -> None:
    await farm.beat()
    began_s = trio.current_time()
    assert await farm.ask(prefer=prefer) is None
    assert trio.current_time() == began_s


@pytest.mark.parametrize(
    "prefer",
    [
        "wait=999999",
        "respond-async, wait=99999",
        "wait=60;x=y",
        'wait="60"',
        "wait = 60",
        'Wait ="99"',
    ],
)
async def test_a_wait_is_bounded_by_a_minute(
    autojump_clock: MockClock, farm: Farm, prefer: str
) -> None:
    await farm.beat()
    began_s = trio.current_time()
    assert await farm.ask(prefer=prefer) is None
    assert 60 <= trio.current_time() - began_s < 60.5


async def test_a_job_goes_to_one_of_two_waiting_engines_and_the_other_continues_to_wait(
    autojump_clock: MockClock, farm: Farm, nursery: trio.Nursery
) -> None:
    asked = []
    for engine_id in ("e1", "e2"):
        await farm.beat(engine_id)
        asked.append(
            await later(
                nursery,
                farm.client.post,
                "/assign_job/",
                {"engine_id": engine_id},
                prefer="wait=30",
            )
        )
    await farm.submit()
    await trio.testing.wait_all_tasks_blocked()
    assert [a.is_answered for a in asked].count(True) == 1
    await farm.submit()
    given = [ok(await a.wait()) for a in asked]
    assert {job["assigned_engine"] for job in given} == {"e1", "e2"}
    assert given[0]["job_id"] != given[1]["job_id"]


async def test_of_two_long_polls_of_one_engine_the_one_without_a_job_continues_to_wait(
    autojump_clock: MockClock, farm: Farm, nursery: trio.Nursery
) -> None:
    await farm.beat(slots=2)
    asked = [
        await later(
            nursery, farm.client.post, "/assign_job/", {"engine_id": "e1"}, prefer="wait=30"
        )
        for _ in range(2)
    ]
    await farm.submit()
    await trio.testing.wait_all_tasks_blocked()
    assert [a.is_answered for a in asked].count(True) == 1
    await farm.submit()
    given = [ok(await a.wait())["job_id"] for a in asked]
    assert len(set(given)) == 2


async def test_a_job_is_not_lost_on_an_engine_that_hung_up_while_it_waited(
    autojump_clock: MockClock, farm: Farm, nursery: trio.Nursery
) -> None:
    await farm.beat()
    asked = await later(nursery, farm.client.post, "/assign_job/", {"engine_id": "e1"}, prefer="wait=30")  # fmt: skip
    asked.scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    job = await farm.submit()
    assert (await farm.job(job["job_id"]))["status"] == "pending"
    given = await farm.ask()
    assert given is not None
    assert (given["job_id"], given["attempt"]) == (job["job_id"], 1)


async def test_a_job_assigned_while_the_disk_was_slow_reaches_an_engine_that_hung_up_meanwhile(
    autojump_clock: MockClock, farm: Farm, nursery: trio.Nursery
) -> None:
    store = farm.daemon.store
    assert isinstance(store, MemoryStore)
    await farm.beat()
    asked = await later(nursery, farm.client.post, "/assign_job/", {"engine_id": "e1"}, prefer="wait=30")  # fmt: skip
    store.block_commits()
    submitted = await later(nursery, farm.client.post, "/jobs/", {"source_url": "http://h/a", "target_codec": "h264"})  # fmt: skip
    asked.scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    store.release()
    job = ok(await submitted.wait())
    given = await farm.ask()
    assert given is not None
    assert (given["job_id"], given["attempt"]) == (job["job_id"], 1)


async def test_an_assignment_whose_reply_was_lost_is_sent_again(
    autojump_clock: MockClock, farm: Farm
) -> None:
    job = await farm.assigned()
    again = await farm.ask()
    assert again == job


async def test_a_drain_answers_long_polls_for_work(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with open_daemon() as daemon:
        farm = Farm(daemon)
        await farm.beat()
        asked = await later(nursery, farm.client.post, "/assign_job/", {"engine_id": "e1"}, prefer="wait=60")  # fmt: skip
        began_s = trio.current_time()
        daemon.stop()
        assert (await asked.wait()).status == 204
        assert trio.current_time() - began_s < 0.1


# ------------------------------------------------------------------------------ waiting for a job


async def test_waiting_for_a_job_ends_when_the_job_does(
    autojump_clock: MockClock, farm: Farm, nursery: trio.Nursery
) -> None:
    job = await farm.assigned()
    path = f"/jobs/{job['job_id']}"
    asked = await later(nursery, farm.client.get, path, prefer="wait=30")
    await farm.client.post(f"{path}/progress", {"attempt": 1, "fraction": 0.5})
    await trio.testing.wait_all_tasks_blocked()
    assert not asked.is_answered
    at_s = trio.current_time()
    await farm.client.post(f"{path}/complete", {"output_url": "http://h/o", "attempt": 1})
    assert ok(await asked.wait())["status"] == "completed"
    assert asked.answered_at_s - at_s < 0.01


async def test_waiting_with_a_version_ends_at_any_change(
    autojump_clock: MockClock, farm: Farm, nursery: trio.Nursery
) -> None:
    job = await farm.assigned()
    path = f"/jobs/{job['job_id']}"
    version = (await farm.client.get(path)).headers["etag"]
    asked = await later(nursery, farm.client.get, path, prefer="wait=30", if_none_match=version)
    assert not asked.is_answered
    await farm.client.post(f"{path}/progress", {"attempt": 1, "fraction": 0.5})
    assert ok(await asked.wait())["progress"]["fraction"] == 0.5


async def test_a_wait_without_a_change_returns_the_job_or_304(
    autojump_clock: MockClock, farm: Farm
) -> None:
    job = await farm.submit()
    path = f"/jobs/{job['job_id']}"
    began_s = trio.current_time()
    reply = await farm.client.get(path, prefer="wait=5")
    assert ok(reply) == job
    assert 5 <= trio.current_time() - began_s < 5.5
    known = await farm.client.get(path, prefer="wait=5", if_none_match=reply.headers["etag"])
    assert known.status == 304


async def test_an_ended_job_is_not_waited_for(autojump_clock: MockClock, farm: Farm) -> None:
    job = await farm.submit()
    await farm.client.delete(f"/jobs/{job['job_id']}")
    began_s = trio.current_time()
    assert ok(await farm.client.get(f"/jobs/{job['job_id']}", prefer="wait=30"))
    assert trio.current_time() == began_s


async def test_an_unknown_job_is_not_waited_for(autojump_clock: MockClock, farm: Farm) -> None:
    assert (await farm.client.get("/jobs/1_0", prefer="wait=30")).status == 404
