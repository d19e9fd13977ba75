"""Each bundled policy passes the suite, and does what its module says."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from distconv_plugins.policy_fair_share import FairShare, FairShareSettings
from distconv_plugins.policy_fastest_first import FastestFirst
from distconv_plugins.policy_fifo import Fifo
from distconv_plugins.policy_size_aware import SizeAware
from distconvd.errors import ConfigError
from distconvd.policy import Hold, Place, Policy, Share
from distconvd.testing.daemon import Daemon, open_daemon
from distconvd.testing.engine import VirtualEngine
from distconvd.testing.policy_suite import NOW_MS, PolicySuite, SomeEngines, engine, job

URL = {"source_url": "http://example.com/input.mp4", "target_codec": "h264"}


class TestSizeAware(PolicySuite):
    @pytest.fixture
    def policy(self) -> Policy:
        return SizeAware()


class TestFifo(PolicySuite):
    @pytest.fixture
    def policy(self) -> Policy:
        return Fifo()


class TestFastestFirst(PolicySuite):
    @pytest.fixture
    def policy(self) -> Policy:
        return FastestFirst()


class TestFairShare(PolicySuite):
    @pytest.fixture
    def policy(self) -> Policy:
        return FairShare(FairShareSettings(weights={"a": 3.0}), SizeAware())


async def submit(daemon: Daemon, count: int = 1, **fields: Any) -> list[str]:
    return [
        (await daemon.client.post("/jobs/", URL | fields)).json()["job_id"] for _ in range(count)
    ]


def placed(policy: Policy, engines: SomeEngines, **fields: Any) -> str | None:
    answer = policy.place(job(**fields), engines, NOW_MS)
    return answer.engine_id if isinstance(answer, Place) else None


def test_fifo_gives_the_job_to_the_engine_that_asks_however_slow() -> None:
    farm = [engine("fast", 1.0), engine("slow", 90.0), engine("new", None)]
    assert placed(Fifo(), SomeEngines(farm, "slow")) == "slow"
    assert placed(Fifo(), SomeEngines(farm, "new")) == "new"
    assert placed(Fifo(), SomeEngines(farm)) == "fast"


async def test_fifo_serves_in_the_order_of_submission_and_reserves_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_daemon(policy="fifo") as daemon:
        fast, slow = (
            VirtualEngine(daemon, "fast", benchmark_time=1.0),
            VirtualEngine(daemon, "slow", benchmark_time=90.0),
        )
        await fast.beat()
        await slow.beat()
        ids = [
            *await submit(daemon, job_size=500), *await submit(daemon, job_size=1),
        ]  # fmt: skip
        assert (await slow.must_ask())["job_id"] == ids[0]
        assert (await fast.must_ask())["job_id"] == ids[1]


def test_fastest_first_takes_the_fastest_for_every_size_and_the_unmeasured_last() -> None:
    farm = [engine("fast", 1.0), engine("slow", 90.0), engine("new", None)]
    for size in (0.0, 75.0, 5000.0):
        assert placed(FastestFirst(), SomeEngines(farm), job_size=size) == "fast"
    assert placed(FastestFirst(), SomeEngines([engine("new", None)])) == "new"


# ------------------------------------------------------------------------------------ fair-share


def test_fair_share_divides_by_the_label_and_its_weight() -> None:
    settings = FairShareSettings(label="customer", weights={"big": 4.0}, default_weight=2.0)
    policy = FairShare(settings, SizeAware())
    assert policy.share(job(labels={"customer": "big"})) == Share("big", 0.25)
    assert policy.share(job(labels={"customer": "other"})) == Share("other", 0.5)
    assert policy.share(job()) == Share("", 0.5)
    by_size = FairShare(FairShareSettings(count="mb"), SizeAware())
    assert by_size.share(job(job_size=250.0)) == Share("", 250.0)
    assert by_size.share(job()) == Share("", 1.0)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_fair_share_refuses_a_weight_that_would_starve(weight: float) -> None:
    with pytest.raises(ConfigError, match="weight of 'a'"):
        FairShare(FairShareSettings(weights={"a": weight}), SizeAware())


async def test_fair_share_serves_a_team_that_submitted_after_the_many_jobs_of_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    settings = {"fair-share": {"weights": {"b": 2.0}}}
    async with open_daemon(policy="fair-share", plugin=settings) as daemon:
        one = VirtualEngine(daemon, "e1", slots=1)
        await one.beat()
        await submit(daemon, 60, labels={"team": "a"})
        await submit(daemon, 40, labels={"team": "b"})
        served: list[str] = []
        for _ in range(30):
            taken = await one.must_ask()
            served.append(taken["labels"]["team"])
            await one.complete(taken)
        assert Counter(served) == {"a": 10, "b": 20}
        assert "b" in served[:2]


async def test_a_policy_may_wrap_another_one_but_not_itself(tmp_path: Path) -> None:
    chain = {"time-window": {"policy": "fair-share"}, "fair-share": {"policy": "fifo"}}
    async with open_daemon(policy="time-window", plugin=chain) as daemon:
        await VirtualEngine(daemon, "e1").beat()
        await submit(daemon, labels={"team": "a"})
        assert (await VirtualEngine(daemon, "e1").must_ask())["labels"] == {"team": "a"}
        assert hasattr(daemon.parts.dispatcher.policy.policy, "share")
    circle = {"time-window": {"policy": "fair-share"}, "fair-share": {"policy": "time-window"}}
    with pytest.raises(ConfigError, match="time-window -> fair-share -> time-window"):
        async with open_daemon(policy="time-window", plugin=circle):
            pass


def test_a_hold_of_the_wrapped_policy_stays_a_hold() -> None:
    policy = FairShare(FairShareSettings(), SizeAware())
    assert isinstance(policy.place(job(), SomeEngines([engine("new", None)]), NOW_MS), Hold)
