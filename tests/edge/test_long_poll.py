"""Test what ends a long poll."""

from typing import Any

import pytest
import trio
from tests.edge.kit import Journal, Site, get, open_site, read_replies, small_app
from trio.testing import MockClock, lockstep_stream_pair, wait_all_tasks_blocked

from distconvd.edge.http import Request, Response, Route
from distconvd.edge.long_poll import wait_while_wanted
from distconvd.errors import NotFound


class Poll:
    """A handler that waits for a change, as a job's long poll does."""

    def __init__(self) -> None:
        self.news = trio.Event()
        self.waiting = 0
        self.over: bool | None = None

    async def _wait(self) -> bytes:
        self.waiting += 1
        try:
            await self.news.wait()
            return b"news"
        finally:
            self.waiting -= 1

    async def handle(self, request: Request) -> Response:
        found = await wait_while_wanted(request, self._wait, 30)
        assert request.link is not None
        self.over = request.link.over
        return Response(200, found or b"none", "text/plain")


@pytest.fixture
def poll() -> Poll:
    return Poll()


@pytest.fixture
async def polled(poll: Poll) -> object:
    async with open_site(small_app(Journal(), _route(poll))) as site:
        yield site


def _route(poll: Poll) -> Route:
    return Route("GET", "/poll", poll.handle, role="public")


async def _begin(site: Site, poll: Poll) -> Any:
    client = site.connect()
    await client.send_all(get("/poll"))
    await wait_all_tasks_blocked()
    assert poll.waiting == 1
    return client


async def test_a_change_ends_the_wait(polled: Site, poll: Poll) -> None:
    client = await _begin(polled, poll)
    poll.news.set()
    assert (await client.receive_some()).endswith(b"news")
    await client.send_all(get("/"))
    assert (await client.receive_some()).startswith(b"HTTP/1.1 200 ")


async def test_the_timeout_ends_the_wait(
    polled: Site, poll: Poll, autojump_clock: MockClock
) -> None:
    client = await _begin(polled, poll)
    assert (await client.receive_some()).endswith(b"none")
    assert trio.current_time() == pytest.approx(30)
    assert poll.over is False


async def test_a_client_that_closes_ends_the_wait(polled: Site, poll: Poll) -> None:
    client = await _begin(polled, poll)
    await client.aclose()
    await wait_all_tasks_blocked()
    assert (poll.waiting, poll.over, polled.open) == (0, True, 0)


async def test_a_client_that_half_closes_is_answered_immediately_with_what_there_is(
    polled: Site, poll: Poll
) -> None:
    client = await _begin(polled, poll)
    await client.send_eof()
    assert (await client.receive_some()).endswith(b"none")


async def test_a_request_sent_ahead_does_not_end_the_wait_and_is_answered_after_it(
    polled: Site, poll: Poll
) -> None:
    client = await _begin(polled, poll)
    await client.send_all(get("/missing"))
    await wait_all_tasks_blocked()
    assert poll.waiting == 1
    poll.news.set()
    await client.send_eof()
    said = bytearray()
    async for data in client:
        said += data
    assert [reply.status for reply in read_replies(bytes(said))] == [200, 404]


async def test_data_sent_ahead_is_read_only_up_to_a_limit(
    autojump_clock: MockClock, polled: Site, poll: Poll
) -> None:
    client = polled.connect(lockstep_stream_pair)
    await client.send_all(get("/poll"))
    sent_bytes = 0
    with trio.move_on_after(5):
        while True:
            await client.send_all(b"x" * 4_096)
            sent_bytes += 4_096
    assert poll.waiting == 1
    assert sent_bytes <= 2 * polled.limits.head_bytes_max


async def test_a_drain_ends_the_wait(polled: Site, poll: Poll) -> None:
    client = await _begin(polled, poll)
    polled.drain.start()
    (reply,) = read_replies(bytes(await client.receive_some()))
    assert (reply.body, reply.headers["connection"]) == (b"none", "close")


async def test_a_wait_that_begins_during_a_drain_ends_immediately(polled: Site, poll: Poll) -> None:
    client = polled.connect()
    await client.send_all(b"GET /poll")
    await wait_all_tasks_blocked()
    polled.drain.start()
    await client.send_all(b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await client.receive_some()).endswith(b"none")


async def test_an_error_in_the_wait_is_raised_unwrapped() -> None:
    async def fail() -> None:
        raise NotFound("Job not found")

    async def handle(request: Request) -> Response:
        await wait_while_wanted(request, fail, 30)
        return Response()

    async with open_site(small_app(Journal(), Route("GET", "/x", handle, role="public"))) as site:
        assert (await site.ask(get("/x")))[0].status == 404


async def test_a_request_without_a_connection_waits_until_the_timeout(
    autojump_clock: MockClock,
) -> None:
    request = Request("GET", "/", {}, {}, {}, None, "id", "-")  # type: ignore[arg-type]
    ended: object = await wait_while_wanted(request, trio.sleep_forever, 7)
    assert ended is None
    assert trio.current_time() == pytest.approx(7)
