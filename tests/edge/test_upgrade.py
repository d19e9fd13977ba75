"""Test handing a connection over to another protocol."""

import logging

import pytest
import trio
from tests.edge.kit import Journal, get, open_site, small_app
from trio.testing import memory_stream_pair
from trio_websocket import wrap_client_stream, wrap_server_stream

from distconvd.edge.http import Request, Response, Route, Upgrade
from distconvd.edge.upgrade import PrefixedStream
from distconvd.errors import Unauthorized


async def echo_messages(stream: trio.abc.Stream) -> None:
    async with trio.open_nursery() as nursery:
        request = await wrap_server_stream(nursery, stream)
        connection = await request.accept()
        for _ in range(2):
            await connection.send_message(await connection.get_message())
        await connection.aclose()


async def upgrade(request: Request) -> Response | Upgrade:
    if "deny" in request.query:
        raise Unauthorized("no")
    return Upgrade(echo_messages)


ROUTE = Route("GET", "/ws", upgrade, role="public")


async def test_a_websocket_library_takes_over_and_reads_the_handshake_itself(
    journal: Journal,
) -> None:
    async with open_site(small_app(journal, ROUTE)) as site, trio.open_nursery() as nursery:
        socket = await wrap_client_stream(nursery, site.connect(), "x", "/ws")
        for message in ("one", "two"):
            await socket.send_message(message)
            assert await socket.get_message() == message
        await socket.aclose()
    assert [(e.status, e.path) for e in journal.exchanges] == [(101, "/ws")]


async def test_an_upgrade_may_be_rejected_with_an_ordinary_reply(journal: Journal) -> None:
    head = get("/ws?deny=1", "Connection: Upgrade", "Upgrade: websocket")
    async with open_site(small_app(journal, ROUTE)) as site:
        assert [reply.status for reply in await site.ask(head + get("/"))] == [401, 200]


async def test_what_was_sent_after_the_head_reaches_the_new_protocol(journal: Journal) -> None:
    seen = bytearray()

    async def run(stream: trio.abc.Stream) -> None:
        while data := await stream.receive_some():
            seen.extend(data)
        await stream.send_all(b"bye")

    async def handle(_request: Request) -> Upgrade:
        return Upgrade(run)

    head = get("/raw", "Connection: upgrade", "Upgrade: raw", "X-Key: secret")
    async with open_site(small_app(journal, Route("GET", "/raw", handle, role="public"))) as site:
        assert await site.talk(head + b"early", b"late") == b"bye"
    assert bytes(seen) == head + b"earlylate"


async def test_a_protocol_that_fails_is_logged_and_closed(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(_stream: trio.abc.Stream) -> None:
        raise RuntimeError("a bug")

    async def handle(_request: Request) -> Upgrade:
        return Upgrade(run)

    async with open_site(small_app(journal, Route("GET", "/raw", handle, role="public"))) as site:
        assert await site.talk(get("/raw")) == b""
    assert [r.levelno for r in caplog.records if r.levelno > logging.INFO] == [logging.ERROR]


async def test_a_prefixed_stream_yields_its_prefix_in_the_sizes_asked_for() -> None:
    near, far = memory_stream_pair()
    stream = PrefixedStream(b"abcdef", near)
    await far.send_all(b"rest")
    assert [await stream.receive_some(4), await stream.receive_some(4)] == [b"abcd", b"ef"]
    assert await stream.receive_some(10) == b"rest"
