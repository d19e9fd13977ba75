"""Whose address counts behind a proxy: `trusted_proxies`."""

import pytest
import trio

from distconvd.auth_keys.wrong_keys import FAILURES_BURST
from distconvd.config import load_config
from distconvd.edge.request_head import TrustedProxies
from distconvd.errors import ConfigError
from distconvd.testing.daemon import open_daemon


@pytest.mark.parametrize(
    "peer, forwarded, client",
    [
        ("10.0.0.1:5", "203.0.113.9", "203.0.113.9:0"),
        ("10.0.0.1:5", "1.2.3.4, 203.0.113.9", "203.0.113.9:0"),  # anybody may write the first
        ("10.0.0.1:5", "203.0.113.9, 10.0.0.2", "203.0.113.9:0"),  # two proxies
        ("10.0.0.1:5", "2001:db8::7", "[2001:db8::7]:0"),
        ("10.0.0.1:5", "[2001:db8::7]:443", "[2001:db8::7]:0"),
        ("10.0.0.1:5", "[2001:db8::7]", "[2001:db8::7]:0"),
        ("[::ffff:10.0.0.1]:5", "203.0.113.9:1234", "203.0.113.9:0"),
        ("10.0.0.1:5", "", "10.0.0.1:5"),
        ("10.0.0.1:5", "unknown", "10.0.0.1:5"),
        ("10.0.0.1:5", "203.0.113.9, unknown", "10.0.0.1:5"),
        ("203.0.113.1:5", "10.9.9.9", "203.0.113.1:5"),  # not a trusted proxy
        ("unix socket", "203.0.113.9", "203.0.113.9:0"),
    ],
)
def test_the_client_is_the_last_address_that_no_trusted_proxy_has(
    peer: str, forwarded: str, client: str
) -> None:
    proxies = TrustedProxies(["10.0.0.0/24", "unix"])
    assert proxies.client_of({"x-forwarded-for": forwarded}, peer) == client


def test_without_trusted_proxies_the_header_counts_for_nothing() -> None:
    assert (
        TrustedProxies().client_of({"x-forwarded-for": "1.2.3.4"}, "unix socket") == "unix socket"
    )


def test_an_invalid_proxy_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"trusted_proxies: .*10\.0\.0\.0/99"):
        load_config({"trusted_proxies": ["10.0.0.0/99"]}, {})


async def test_wrong_keys_are_counted_for_the_client_and_not_for_its_proxy(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_daemon(trusted_proxies=["unix"]) as daemon:

        async def guess(client: str) -> int:
            headers = {"x-api-key": "guess", "x-forwarded-for": client}
            return (await daemon.client_with(headers).get("/jobs/")).status

        statuses = [await guess("203.0.113.9") for _ in range(FAILURES_BURST + 1)]
        assert (statuses[0], statuses[-1]) == (401, 429)
        assert await guess("203.0.113.10") == 401
