"""Test the timeouts for slow clients, with a mock clock."""

from collections.abc import AsyncIterator

import pytest
import trio
from tests.edge.kit import Journal, Site, get, open_site, read_all, read_replies, small_app
from trio.testing import MockClock, lockstep_stream_pair

from distconvd.edge.http import Request, Response, Route


async def drip(client: trio.abc.SendStream, data: bytes, every_s: float) -> None:
    """Send a byte every `every_s`, until the server closes."""
    try:
        for i in range(len(data)):
            await client.send_all(data[i : i + 1])
            await trio.sleep(every_s)
    except trio.BrokenResourceError:
        return


async def test_a_client_that_sends_nothing_is_closed_without_a_reply(
    autojump_clock: MockClock, site: Site
) -> None:
    client = site.connect()
    assert await read_all(client) == b""
    assert 10 <= trio.current_time() < 12


async def test_an_idle_connection_is_closed_without_a_reply(
    autojump_clock: MockClock, site: Site
) -> None:
    client = site.connect()
    await client.send_all(get("/"))
    (reply,) = read_replies(await read_all(client))
    assert reply.status == 200
    assert 60 <= trio.current_time() < 62


async def test_a_connection_that_is_used_within_the_idle_timeout_stays_open(
    autojump_clock: MockClock, site: Site
) -> None:
    client = site.connect()
    for _ in range(5):
        await client.send_all(get("/"))
        assert (await client.receive_some()).startswith(b"HTTP/1.1 200 ")
        await trio.sleep(55)
    assert site.open == 1


@pytest.mark.parametrize("every_s", [0.5, 3, 9])
async def test_a_head_that_arrives_too_slowly_gets_408(
    autojump_clock: MockClock, site: Site, every_s: float
) -> None:
    client = site.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip, client, get("/", "A: " + "b" * 500), every_s)
        (reply,) = read_replies(await read_all(client))
        assert (reply.status, reply.headers["connection"]) == (408, "close")
        assert trio.current_time() < 14.5  # including the linger time
        nursery.cancel_scope.cancel()


async def test_a_slow_second_head_has_the_head_timeout_and_not_the_idle_timeout(
    autojump_clock: MockClock,
    site: Site,
) -> None:
    client = site.connect()
    await client.send_all(get("/") + b"GET ")
    replies = read_replies(await read_all(client))
    assert [reply.status for reply in replies] == [200, 408]
    assert trio.current_time() < 14


@pytest.mark.parametrize("path, method", [("/echo", "POST"), ("/count", "PUT")])
async def test_a_body_that_stops_arriving_gets_408(
    autojump_clock: MockClock, site: Site, path: str, method: str
) -> None:
    client = site.connect()
    await client.send_all(get(path, "Content-Length: 10", method=method) + b"abc")
    (reply,) = read_replies(await read_all(client))
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert 30 <= trio.current_time() < 34


async def test_a_body_below_the_minimum_rate_gets_408_long_before_its_end(
    autojump_clock: MockClock, site: Site
) -> None:
    client = site.connect()
    await client.send_all(get("/echo", "Content-Length: 100000", method="POST"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip, client, b"x" * 1_000, 5)
        assert (await client.receive_some()).startswith(b"HTTP/1.1 408 ")
        nursery.cancel_scope.cancel()
    assert 30 <= trio.current_time() < 40


async def test_a_slow_but_steady_upload_may_take_as_long_as_it_needs(
    autojump_clock: MockClock, site: Site
) -> None:
    client = site.connect()
    await client.send_all(get("/count", "Content-Length: 1000000", method="PUT"))
    for _ in range(50):
        await client.send_all(b"x" * 20_000)
        await trio.sleep(10)
    assert (await client.receive_some()).endswith(b"1000000")
    assert trio.current_time() >= 500


async def test_the_time_that_a_handler_takes_does_not_count_against_the_client(
    autojump_clock: MockClock, site: Site
) -> None:
    client = site.connect()
    await client.send_all(get("/wait"))
    assert (await client.receive_some()).endswith(b"waited")


async def test_an_unread_body_that_never_arrives_closes_the_connection(
    autojump_clock: MockClock, site: Site
) -> None:
    client = site.connect()
    await client.send_all(get("/ignore", "Content-Length: 10", method="POST"))
    (reply,) = read_replies(await read_all(client))
    assert reply.status == 200
    assert 30 <= trio.current_time() < 34


async def test_a_client_that_does_not_read_its_reply_is_dropped(
    autojump_clock: MockClock, site: Site, journal: Journal
) -> None:
    client = site.connect(lockstep_stream_pair)
    await client.send_all(get("/stream"))
    await client.receive_some()
    await trio.sleep(40)
    assert site.open == 0
    assert (journal.begun_bodies, journal.closed_bodies) == (1, 1)
    assert [exchange.status for exchange in journal.exchanges] == [200]


async def test_producing_a_reply_may_take_as_long_as_it_needs(
    autojump_clock: MockClock, journal: Journal
) -> None:
    async def events() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"event"
            await trio.sleep(600)

    async def handle(_request: Request) -> Response:
        return Response(200, events(), "text/plain")

    async with open_site(small_app(journal, Route("GET", "/x", handle, role="public"))) as site:
        client = site.connect()
        await client.send_all(get("/x", "Connection: close"))
        assert read_replies(await read_all(client))[0].body == b"event" * 3


async def test_a_client_that_neither_reads_nor_closes_is_closed_after_the_linger_time(
    autojump_clock: MockClock, site: Site
) -> None:
    client = site.connect()
    await client.send_all(b"nonsense\r\n\r\n")
    await client.receive_some()
    await trio.sleep(3)
    assert site.open == 0


async def test_a_client_that_never_stops_sending_is_closed_after_the_linger_time(
    autojump_clock: MockClock, site: Site
) -> None:
    client = site.connect()
    await client.send_all(b"nonsense\r\n\r\n")
    await flood(client)
    assert trio.current_time() < 4


async def flood(client: trio.abc.SendStream) -> None:
    """Send until the server has closed."""
    try:
        while trio.current_time() < 10:
            await client.send_all(b"x" * 65_536)
            await trio.sleep(0.1)
    except trio.BrokenResourceError:
        return
