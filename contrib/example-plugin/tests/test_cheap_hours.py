"""Test the plugin: its parts as plain objects, then in a whole daemon in memory."""

import pytest
from distconv_cheap_hours import HOUR_MS, CheapHours, CheapHoursSettings, Tariff

from distconvd.errors import ConfigError
from distconvd.model import Job
from distconvd.policy import EngineInfo, Hold, Place, Policy
from distconvd.testing.daemon import open_daemon
from distconvd.testing.policy_suite import PolicySuite, SomeEngines

NIGHT, EVENING = 3 * HOUR_MS, 18 * HOUR_MS
CHEAP_ALWAYS = {"cheap-hours": {"prices": [0.1] * 24}}
DEAR_NOW = {"cheap-hours": {"prices": [0.1] * 20 + [0.5] * 4}}
"""The clock of a daemon in memory begins at 22:13 UTC."""


def engine(name: str, benchmark_s: float | None, *tags: str) -> EngineInfo:
    return EngineInfo(name, benchmark_s, False, frozenset(tags), slots=1, held=0)


FAST, SUNNY = engine("fast", 1.0), engine("sunny", 5.0, "solar")


class TestConformance(PolicySuite):
    """The suite that every policy must pass; its clock shows a cheap hour."""

    @pytest.fixture
    def policy(self) -> Policy:
        return CheapHours(CheapHoursSettings())


def test_a_tagged_engine_is_preferred_to_a_faster_one() -> None:
    placed = CheapHours(CheapHoursSettings()).place(
        Job("1", "", "av1"), SomeEngines([FAST, SUNNY]), NIGHT
    )
    assert placed == Place("sunny", "the fastest idle engine with the tag solar")


def test_without_a_tagged_engine_the_fastest_is_taken() -> None:
    placed = CheapHours(CheapHoursSettings()).place(Job("1", "", "av1"), SomeEngines([FAST]), NIGHT)
    assert isinstance(placed, Place)
    assert placed.engine_id == "fast"


def test_a_normal_job_waits_for_the_end_of_the_dear_hours_and_a_high_one_does_not() -> None:
    policy = CheapHours(CheapHoursSettings())
    decision = policy.place(Job("1", "", "av1"), SomeEngines([FAST]), EVENING + 5)
    assert isinstance(decision, Hold)
    assert decision.until_ms == 21 * HOUR_MS
    placed = policy.place(Job("1", "", "av1", priority=1), SomeEngines([FAST]), EVENING)
    assert isinstance(placed, Place)


def test_an_engine_without_a_benchmark_is_not_used() -> None:
    policy = CheapHours(CheapHoursSettings())
    assert isinstance(
        policy.place(Job("1", "", "av1"), SomeEngines([engine("new", None)]), NIGHT), Hold
    )


@pytest.mark.parametrize("prices", [[], [0.1] * 23, [9.0] * 24])
def test_invalid_prices_are_rejected(prices: list[float]) -> None:
    with pytest.raises(ConfigError, match="cheap-hours"):
        Tariff(CheapHoursSettings(prices=prices))


async def test_a_daemon_places_by_the_policy(autojump_clock: object) -> None:
    async with open_daemon(policy="cheap-hours", plugin=CHEAP_ALWAYS) as daemon:
        for name, seconds, tags in (("fast", 1.0, []), ("sunny", 5.0, ["solar"])):
            beat = {"engine_id": name, "benchmark_time": seconds, "tags": tags, "status": "idle"}
            await daemon.client.post("/engines/heartbeat", beat)
        job = {"source_url": "http://h/a.mov", "target_codec": "h264"}
        assert (await daemon.client.post("/jobs/", job)).status == 200
        placed = (await daemon.client.post("/assign_job/", {})).json()
        assert placed["assigned_engine"] == "sunny"


async def test_a_held_job_says_why(autojump_clock: object) -> None:
    async with open_daemon(policy="cheap-hours", plugin=DEAR_NOW) as daemon:
        beat = {"engine_id": "fast", "benchmark_time": 1.0, "status": "idle"}
        await daemon.client.post("/engines/heartbeat", beat)
        job = {"source_url": "http://h/a.mov", "target_codec": "h264"}
        job_id = (await daemon.client.post("/jobs/", job)).json()["job_id"]
        assert (await daemon.client.post("/assign_job/", {})).status == 204
        why = (await daemon.client.get(f"/jobs/{job_id}/why")).json()
        assert "electricity costs 0.50" in why["summary"]


async def test_an_urgent_job_that_is_very_large_is_rejected(autojump_clock: object) -> None:
    async with open_daemon(policy="cheap-hours") as daemon:
        job = {"source_url": "http://h/a.mov", "target_codec": "h264", "job_size": 20_000}
        refused = await daemon.client.post("/jobs/", {**job, "priority": 2})
        assert (refused.status, refused.json()["field"]) == (400, "priority")
        assert (await daemon.client.post("/jobs/", {**job, "priority": 1})).status == 200


async def test_the_route_reports_the_price(autojump_clock: object) -> None:
    async with open_daemon(plugin=CHEAP_ALWAYS) as daemon:
        answer = (await daemon.client.get("/cheap-hours")).json()
        assert (answer["price"], answer["is_dear"]) == (0.1, False)
        assert (await daemon.anonymous.get("/cheap-hours")).status == 401
