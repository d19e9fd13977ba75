"""Test clients that disconnect at any byte of a request or a reply."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
from tests.edge.kit import Journal, Site, chunked, get, open_site, post, read_replies, small_app
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

REQUESTS = {
    "get": get("/"),
    "post": post("/echo", b'{"a": 1}', "Content-Type: application/json"),
    "chunked": get("/count", "Transfer-Encoding: chunked", method="PUT") + chunked(b"abc", b"d"),
    "stream": get("/stream"),
    "pipelined": get("/") + post("/echo", b"x") + get("/missing"),
}


def assert_quiet(caplog: pytest.LogCaptureFixture) -> None:
    loud = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert loud == []


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_client_may_close_after_any_byte_of_its_request(
    site: Site, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    data = REQUESTS[name]
    for cut in range(len(data) + 1):
        client = site.connect()
        await client.send_all(data[:cut])
        await client.aclose()
    await wait_all_tasks_blocked()
    assert site.open == 0
    assert_quiet(caplog)


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_client_may_half_close_after_any_byte_and_receives_only_whole_replies(
    site: Site, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    data = REQUESTS[name]
    whole: list[Any] = []
    for cut in range(len(data) + 1):
        replies = read_replies(await site.talk(data[:cut]))
        assert all(reply.status in (200, 404) for reply in replies)
        whole = replies
    assert whole[0].status == 200
    await wait_all_tasks_blocked()
    assert site.open == 0
    assert_quiet(caplog)


def cut_pair(bytes_max: int) -> Callable[[], Any]:
    """Return a factory of stream pairs whose client hangs up after so many bytes of the reply."""

    def make() -> Any:
        client, server = memory_stream_pair()
        budget = bytes_max

        async def send_all(data: bytes) -> None:
            nonlocal budget
            await trio.lowlevel.checkpoint()
            if len(data) > budget:
                raise trio.BrokenResourceError("the client has hung up")
            budget -= len(data)

        server.send_stream.send_all = send_all  # type: ignore[assignment,method-assign]
        return client, server

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", REQUESTS)
async def test_a_client_may_disconnect_at_any_byte_of_the_reply(
    site: Site, caplog: pytest.LogCaptureFixture, journal: Journal, name: str
) -> None:
    size = len(await site.talk(REQUESTS[name]))
    for cut in range(size):
        client = site.connect(cut_pair(cut))
        await client.send_all(REQUESTS[name])
        await client.send_eof()
    await wait_all_tasks_blocked()
    assert site.open == 0
    assert_quiet(caplog)
    assert journal.closed_bodies == journal.begun_bodies


async def test_a_client_that_disconnects_causes_one_debug_line(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    client = site.connect()
    await client.send_all(b"GET / HT")
    await client.aclose()
    await wait_all_tasks_blocked()
    assert [(r.levelno, r.name) for r in caplog.records] == [(logging.DEBUG, "distconvd.edge")]


async def test_a_reset_in_the_middle_of_a_body_raises_client_disconnected_in_the_handler(
    site: Site, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    client = site.connect()
    await client.send_all(get("/count", "Content-Length: 10", method="PUT") + b"abc")
    await journal.begun.wait()
    await client.aclose()
    await wait_all_tasks_blocked()
    assert site.open == 0
    assert journal.exchanges == []
    assert_quiet(caplog)


async def test_cancelling_the_server_closes_its_connections(journal: Journal) -> None:
    async with open_site(small_app(journal)) as site:
        client = site.connect()
        await client.send_all(get("/wait"))
        await journal.begun.wait()
    assert await client.receive_some() == b""


async def test_a_request_that_arrives_as_the_drain_starts_is_not_begun(
    site: Site, journal: Journal
) -> None:
    client = site.connect()
    await wait_all_tasks_blocked()
    await client.send_all(get("/"))  # the server's task has received it, but has not run yet
    site.drain.start()
    assert await client.receive_some() == b""
    assert journal.requests == []
