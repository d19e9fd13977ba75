"""Test that websockets, event streams and long polls end when their key is revoked."""

import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.api.kit import Farm, later, problem
from tests.push.kit import Wall
from trio.testing import MockClock

from distconvd.testing.daemon import Daemon, open_daemon

PLUGIN = """
from distconvd import hookimpl
from distconvd.auth import wrong_key
from distconvd.edge.http import Principal

ROLES = {"read", "submit", "engine"}
ENGINE = None
ASKED = []

class Switch:
    def authenticate(self, key, peer):
        ASKED.append(key)
        if not ROLES:
            raise wrong_key()
        return Principal("key", frozenset(ROLES), ENGINE)

@hookimpl
def distconvd_register_authenticators(registrar):
    registrar.add("switch", lambda context: Switch())
"""


@pytest.fixture
async def switched(tmp_path: Path, autojump_clock: MockClock) -> AsyncGenerator[Daemon]:
    """A daemon whose only key can be changed while it runs."""
    plugin = tmp_path / "switch.py"
    plugin.write_text(PLUGIN)
    async with open_daemon(plugins=[str(plugin)], auth="switch") as daemon:
        yield daemon


def key() -> Any:
    return sys.modules["distconvd_plugin_switch"]


@pytest.mark.parametrize("change", ["revoked", "another role", "another engine"])
async def test_a_websocket_is_closed_with_1008_when_its_key_is_no_longer_accepted(
    autojump_clock: MockClock, switched: Daemon, nursery: trio.Nursery, change: str
) -> None:
    farm, wall = Farm(switched), Wall(switched, nursery)
    engine = await wall.ready()
    await farm.submit()
    assert (await engine.job())["attempt"] == 1
    if change == "revoked":
        key().ROLES.clear()
    elif change == "another role":
        key().ROLES.discard("engine")
    else:
        key().ENGINE = "e2"
    at_s = trio.current_time()
    code, reason = await engine.end()
    assert (code, reason) == (1008, "the key is no longer accepted")
    assert trio.current_time() - at_s <= 21
    key().ROLES |= {"read", "submit", "engine"}
    key().ENGINE = None
    (job,) = (await farm.client.get("/jobs/")).json()
    assert job["status"] == "assigned"  # its lease is untouched


async def test_an_engine_whose_key_has_lost_its_role_gets_no_further_work(
    autojump_clock: MockClock, switched: Daemon, nursery: trio.Nursery
) -> None:
    farm, wall = Farm(switched), Wall(switched, nursery)
    engine = await wall.ready()
    await trio.sleep(6)
    keep = set(key().ROLES)
    key().ROLES.discard("engine")
    job = await farm.submit()
    assert (await engine.end())[0] == 1008
    key().ROLES |= keep
    assert (await farm.client.get(f"/jobs/{job['job_id']}")).json()["job_id"] == job["job_id"]


async def test_a_good_key_is_rechecked_only_every_few_seconds(
    autojump_clock: MockClock, switched: Daemon, nursery: trio.Nursery
) -> None:
    engine = await Wall(switched, nursery).ready()
    key().ASKED.clear()
    for _ in range(100):
        await engine.beat()
    assert len(key().ASKED) <= 1
    await trio.sleep(61)
    assert 2 <= len(key().ASKED) <= 5


async def test_an_event_stream_ends_when_its_key_is_no_longer_accepted(
    autojump_clock: MockClock, switched: Daemon
) -> None:
    async with switched.client.exchange("GET", "/events") as (_, chunks):
        await anext(chunks)
        await trio.sleep(6)
        assert b"still here" in await anext(chunks)
        key().ROLES.clear()
        at_s = trio.current_time()
        rest = b"".join([chunk async for chunk in chunks])
    assert b"the key is no longer accepted" in rest
    assert trio.current_time() - at_s <= 16


@pytest.mark.parametrize("change", ["revoked", "another role"])
async def test_a_waiting_engine_with_a_revoked_key_gets_401_and_its_job_is_released(
    autojump_clock: MockClock, switched: Daemon, nursery: trio.Nursery, change: str
) -> None:
    farm = Farm(switched)
    await farm.beat()
    asked = await later(nursery, farm.client.post, "/assign_job/", {"engine_id": "e1"}, prefer="wait=30")  # fmt: skip
    keep = set(key().ROLES)
    key().ROLES.discard("engine")
    if change == "revoked":
        key().ROLES.clear()
        key().ROLES.add("submit")
    job = await farm.submit()
    problem(await asked.wait(), 401)
    key().ROLES |= keep
    found = await farm.job(job["job_id"])
    assert (found["status"], found["retries"]) == ("pending", 0)


async def test_a_long_poll_for_work_ends_within_seconds_after_its_key_is_revoked(
    autojump_clock: MockClock, switched: Daemon, nursery: trio.Nursery
) -> None:
    farm = Farm(switched)
    await farm.beat()
    asked = await later(nursery, farm.client.post, "/assign_job/", {"engine_id": "e1"}, prefer="wait=60")  # fmt: skip
    key().ROLES.clear()
    at_s = trio.current_time()
    problem(await asked.wait(), 401)
    assert trio.current_time() - at_s <= 6
    key().ROLES |= {"read", "submit", "engine"}
    job = await farm.submit()
    assert (await farm.job(job["job_id"]))["attempt"] == 0  # nothing was begun for the request


async def test_a_waiting_reader_with_a_revoked_key_gets_401(
    autojump_clock: MockClock, switched: Daemon, nursery: trio.Nursery
) -> None:
    farm = Farm(switched)
    job = await farm.submit()
    asked = await later(nursery, farm.client.get, f"/jobs/{job['job_id']}", prefer="wait=30")
    key().ROLES.discard("read")
    await farm.client.request("DELETE", f"/jobs/{job['job_id']}")
    problem(await asked.wait(), 401)
