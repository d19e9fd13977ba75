"""The rate limit: which requests are counted, and what a caller over the limit gets."""

import logging
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio
from tests.api.kit import problem
from trio.testing import MockClock

from distconvd.auth_keys.key_file import KeyRole, add_key
from distconvd.auth_keys.token_bucket import Buckets
from distconvd.config import load_config
from distconvd.errors import ConfigError
from distconvd.testing.daemon import Client, Daemon, Reply, open_daemon
from distconvd.testing.engine import VirtualEngine

ROLES: dict[str, list[KeyRole]] = {
    "anna": ["read", "submit"], "bob": ["read"], "attic": ["engine"], "boss": ["admin"]
}  # fmt: skip
JOB = {"source_url": "file:///a.mov", "target_codec": "h264"}


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def drawn(buckets: Buckets, name: str, tries: int = 1_000) -> int:
    """Return how many tokens can be taken immediately."""
    for taken in range(tries):
        if buckets.wait_s(name) > 0:
            return taken
        buckets.take(name)
    return tries


# ------------------------------------------------------------------------------------- buckets


@pytest.mark.parametrize("burst", [1, 2, 7, 100])
@pytest.mark.parametrize("refill_s", [0.001, 0.1, 1 / 3, 60.0])
def test_a_bucket_gives_its_burst_and_then_a_token_for_each_refill(
    burst: int, refill_s: float
) -> None:
    clock = Clock()
    buckets = Buckets(burst, refill_s, clock)
    assert drawn(buckets, "a") == burst
    assert buckets.wait_s("a") == pytest.approx(refill_s, abs=1e-5)
    for _ in range(50):
        clock.now_s += buckets.wait_s("a") + 2e-6
        assert drawn(buckets, "a") == 1
    clock.now_s += burst * refill_s * 1.001
    assert drawn(buckets, "a") == burst
    clock.now_s += 10 * burst * refill_s
    assert drawn(buckets, "a") == burst


def test_every_key_has_its_own_bucket() -> None:
    buckets = Buckets(3, 1.0, Clock())
    assert [drawn(buckets, name) for name in ("a", "b", "a")] == [3, 3, 0]


def test_the_table_of_buckets_is_bounded_and_keeps_the_most_recently_used() -> None:
    buckets = Buckets(3, 1.0, Clock(), names_max=10)
    for number in range(50):
        assert buckets.wait_s("often") < 100
        buckets.take("often")
        buckets.take(f"once {number}")
    assert len(buckets) == 10
    assert drawn(buckets, "often") == 0
    assert drawn(buckets, "once 0") == 3


# ------------------------------------------------------------------------------------ a daemon


class Limited:
    """A daemon with a key file and a limit of two requests per second, five in a burst."""

    def __init__(self, daemon: Daemon, keys: dict[str, str]) -> None:
        self.daemon = daemon
        self.keys = keys

    def as_(self, name: str) -> Client:
        return self.daemon.client_with({"x-api-key": self.keys[name]})


@pytest.fixture
async def limited(tmp_path: Path) -> AsyncGenerator[Limited]:
    path = tmp_path / "keys.json"
    keys = {name: add_key(path, name, roles, 0) for name, roles in ROLES.items()}
    async with open_daemon(
        api_key=None, key_file=str(path), rate_limit_per_s=2, rate_limit_burst=5,
        plugin={"key-file": {"poll_s": 1e6}},  # a polling thread would disturb the clock
    ) as daemon:  # fmt: skip
        yield Limited(daemon, keys)


async def statuses(client: Client, path: str, number: int) -> list[int]:
    return [(await client.get(path)).status for _ in range(number)]


async def test_a_key_over_its_rate_gets_429_with_retry_after_and_others_do_not(
    autojump_clock: MockClock, limited: Limited
) -> None:
    anna = limited.as_("anna")
    assert await statuses(anna, "/jobs/", 5) == [200] * 5
    reply = await anna.get("/jobs/")
    assert (
        "key 'anna' is over its rate limit (2/s, bursts of up to 5)"
        in problem(reply, 429)["detail"]
    )
    assert reply.headers["retry-after"] == "1"
    assert await statuses(limited.as_("bob"), "/jobs/", 5) == [200] * 5
    await trio.sleep(0.5)
    assert await statuses(anna, "/jobs/", 2) == [200, 429]


async def test_a_request_over_the_rate_changes_nothing(limited: Limited) -> None:
    anna = limited.as_("anna")
    replies = [await anna.post("/jobs/", JOB) for _ in range(8)]
    assert [reply.status for reply in replies] == [200] * 5 + [429] * 3
    assert len(limited.daemon.parts.dispatcher.state.jobs) == 5


async def test_after_retry_after_seconds_the_next_request_is_served(
    autojump_clock: MockClock, limited: Limited
) -> None:
    anna = limited.as_("anna")
    reply = Reply(200)
    while reply.status == 200:
        reply = await anna.get("/jobs/")
    await trio.sleep(int(reply.headers["retry-after"]))
    assert (await anna.get("/jobs/")).status == 200


async def test_requests_of_the_engine_role_are_never_limited(
    autojump_clock: MockClock, limited: Limited
) -> None:
    for name in ("attic", "boss"):
        client = limited.as_(name)
        engine = VirtualEngine(limited.daemon, f"of-{name}", client=client)
        await statuses(client, "/jobs/", 8)  # its bucket is empty now, whatever it may read
        for _ in range(20):
            assert (await limited.as_("anna").post("/jobs/", JOB)).status in (200, 429)
            await engine.beat()
            await trio.sleep(0.5)
        for _ in range(3):
            job = await engine.ask()
            assert job is not None
            await engine.complete(job)


async def test_forbidden_requests_are_counted_too(limited: Limited) -> None:
    bob = limited.as_("bob")
    replies = [(await bob.post("/engines/heartbeat", {"engine_id": "e"})).status for _ in range(6)]
    assert replies == [403] * 5 + [429]


async def test_health_checks_and_public_routes_are_not_counted(limited: Limited) -> None:
    assert await statuses(limited.daemon.anonymous, "/readyz", 20) == [200] * 20
    anna = limited.as_("anna")
    assert await statuses(anna, "/livez", 20) == [200] * 20
    assert await statuses(anna, "/jobs/", 6) == [200] * 5 + [429]


async def test_a_request_over_the_limit_is_logged_with_the_name_of_its_key(
    limited: Limited, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="distconvd.access")
    await statuses(limited.as_("anna"), "/jobs/", 6)
    fields = vars(caplog.records[-1])
    assert (fields["status"], fields["key_name"]) == (429, "anna")


async def test_without_keys_each_address_is_limited_but_engines_are_not(
    autojump_clock: MockClock,
) -> None:
    async with open_daemon(api_key=None, rate_limit_per_s=0.5, rate_limit_burst=2) as daemon:
        assert await statuses(daemon.anonymous, "/jobs/", 3) == [200, 200, 429]
        refused = await daemon.anonymous.get("/jobs/")
        assert "is over its rate limit" in problem(refused, 429)["detail"]
        assert refused.headers["retry-after"] == "2"
        engine = VirtualEngine(daemon, "e1", client=daemon.anonymous)
        for _ in range(10):
            await engine.beat()


async def test_there_is_no_limit_by_default() -> None:
    async with open_daemon() as daemon:
        assert await statuses(daemon.client, "/jobs/", 200) == [200] * 200


@pytest.mark.parametrize(
    "setting, value",
    [
        *(("rate_limit_per_s", value) for value in (-1, 1e-9, float("nan"), 1e20, "many")),
        *(("rate_limit_burst", value) for value in (0, -1, 1.5)),
    ],
)
def test_a_limit_that_would_reject_every_request_stops_the_start(
    setting: str, value: object
) -> None:
    with pytest.raises(ConfigError, match=setting):
        load_config({setting: value}, {})
