"""Test the server on real sockets: limits, floods, slow clients, the drain, and leaks."""

import errno
import json
import logging
import os
import resource
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from tests.edge.kit import KEY, Journal, get, post, read_all, read_replies, small_app

from distconvd.edge.admission import RESERVE, affordable_connections
from distconvd.edge.http import Request, Response, Route
from distconvd.edge.limits import EdgeLimits
from distconvd.edge.listeners import name_of, open_listeners
from distconvd.edge.long_poll import wait_while_wanted
from distconvd.edge.server import Server, peer_of, serve

pytestmark = pytest.mark.alone  # it counts descriptors


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def running(
    journal: Journal, *routes: Route, limits: EdgeLimits | None = None
) -> AsyncGenerator[tuple[Server, int]]:
    """Serve on a loopback port; afterwards no descriptor and no task may be left."""
    fds, tasks = open_fds(), trio.lowlevel.current_statistics().tasks_living
    listeners = await open_listeners("127.0.0.1", 0)
    port = listeners[0].socket.getsockname()[1]
    app = small_app(journal, *routes)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, listeners, app, limits or EdgeLimits())
        yield server, port
        await server.drain(5)
    assert server.connections == 0
    assert open_fds() == fds
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def connect(port: int) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", port)


async def receive_replies(client: trio.SocketStream, number: int) -> bytes:
    received = b""
    while received.count(b"HTTP/1.1 ") < number:
        received += await client.receive_some()
    return received


async def exchange(port: int, data: bytes) -> bytes:
    async with await connect(port) as client:
        await client.send_all(data)
        await client.send_eof()
        return await read_all(client)


async def test_requests_are_served_on_real_sockets(journal: Journal) -> None:
    async with running(journal) as (_, port):
        replies = read_replies(await exchange(port, get("/") + post("/echo", b"x") * 3))
    assert [reply.status for reply in replies] == [200] * 4
    assert journal.requests[0].peer.startswith("127.0.0.1:")


async def test_one_connection_too_many_gets_503_with_retry_after(
    journal: Journal,
) -> None:
    async with running(journal, limits=EdgeLimits(connections_max=2)) as (_, port):
        first, second = await connect(port), await connect(port)
        for client in (first, second):
            await client.send_all(get("/"))
            await client.receive_some()
        (reply,) = read_replies(await exchange(port, get("/")))
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert json.loads(reply.body)["request_id"] == reply.headers["x-request-id"]
        await first.aclose()
        await second.aclose()
    assert [e.status for e in journal.exchanges].count(503) == 1


async def test_a_key_gets_in_although_connections_without_one_hold_every_place(
    journal: Journal,
) -> None:
    async with running(journal, limits=EdgeLimits(connections_max=3)) as (server, port):
        keyless = [await connect(port) for _ in range(3)]
        for client in keyless:
            await client.send_all(get("/"))
            assert b" 200 " in await client.receive_some()
        async with await connect(port) as holder:
            for _ in range(2):
                await holder.send_all(get("/locked", KEY))
                assert b" 200 " in await holder.receive_some()
            assert await keyless[0].receive_some() == b""  # the oldest has made room
            await keyless[1].send_all(get("/"))
            assert b" 200 " in await keyless[1].receive_some()
            assert server.connections == 3
        for client in keyless:
            await client.aclose()


async def test_a_connection_that_has_shown_a_key_never_makes_room(journal: Journal) -> None:
    limits = EdgeLimits(connections_max=2)
    async with (
        running(journal, limits=limits) as (_, port),
        await connect(port) as first,
        await connect(port) as second,
    ):
        for client in (first, second):
            await client.send_all(get("/locked", KEY) + get("/"))
            assert len(read_replies(await receive_replies(client, 2))) == 2
        for wanted in (get("/locked", KEY), get("/")):
            (reply,) = read_replies(await exchange(port, wanted))
            assert reply.status == 503
        await first.send_all(get("/"))
        assert b" 200 " in await first.receive_some()


@pytest.mark.parametrize("wanted", [get("/"), get("/locked", "X-API-Key: guess")])
async def test_a_newcomer_without_a_right_key_does_not_stay_when_all_places_are_taken(
    journal: Journal, wanted: bytes
) -> None:
    async with running(journal, limits=EdgeLimits(connections_max=1)) as (server, port):
        async with await connect(port) as first:
            await first.send_all(get("/"))
            await first.receive_some()
            async with await connect(port) as second:
                await second.send_all(wanted * 2)
                (reply,) = read_replies(
                    await read_all(second)
                )  # and no reply to the second request
                assert reply.status in (401, 503)
        while server.connections:
            await trio.lowlevel.checkpoint()


async def test_a_closed_connection_makes_room_for_another(journal: Journal) -> None:
    async with running(journal, limits=EdgeLimits(connections_max=1)) as (server, port):
        for _ in range(5):
            (reply,) = read_replies(await exchange(port, get("/")))
            assert reply.status == 200
            while server.connections:
                await trio.lowlevel.checkpoint()


async def test_hundreds_of_abandoned_connections_leak_nothing(journal: Journal) -> None:
    async with running(journal) as (_, port):
        for _ in range(10):
            clients = [await connect(port) for _ in range(50)]
            for number, client in enumerate(clients):
                if number % 3:
                    await client.send_all(b"GET / HTTP/1.1\r\nHos"[: number % 20])
                if number % 2:
                    # A reset rather than a close.
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01" + b"\x00" * 7)
                await client.aclose()


async def test_requests_are_served_next_to_hundreds_of_slow_heads(journal: Journal) -> None:
    async with running(journal) as (server, port):
        slow = [await connect(port) for _ in range(300)]
        for client in slow:
            await client.send_all(b"GET / HTTP/1.1\r\nX-Slow:")
        with trio.fail_after(5):
            for _ in range(20):
                assert read_replies(await exchange(port, get("/")))[0].status == 200
        assert server.connections >= 300
        for client in slow:
            await client.aclose()


async def test_a_413_is_read_by_a_client_that_is_still_sending(journal: Journal) -> None:
    async with running(journal) as (_, port), await connect(port) as client:
        await client.send_all(get("/echo", "Content-Length: 4000000", method="POST"))
        await client.send_all(b"x" * 4_000_000)
        (reply,) = read_replies(await read_all(client))
        assert reply.status == 413


async def test_the_server_accepts_again_after_running_out_of_descriptors(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="distconvd.edge")
    failures = [errno.EMFILE, errno.EMFILE, errno.ENFILE]
    real_accept = trio.SocketListener.accept

    async def accept(self: trio.SocketListener) -> trio.SocketStream:
        if failures:
            number = failures.pop()
            await trio.lowlevel.checkpoint()
            raise OSError(number, os.strerror(number))
        return await real_accept(self)

    monkeypatch.setattr(trio.SocketListener, "accept", accept)
    async with running(journal) as (_, port):
        assert read_replies(await exchange(port, get("/")))[0].status == 200
    assert failures == []
    assert caplog.text.count("cannot accept new connections") == 1
    assert "connections are accepted again" in caplog.text


# ------------------------------------------------------------------------------------- the drain


async def test_a_drain_closes_idle_connections_immediately_and_finishes_requests(
    journal: Journal,
) -> None:
    release = trio.Event()

    async def handle(_request: Request) -> Response:
        journal.begun.set()
        await release.wait()
        return Response(200, b"done")

    slow_route = Route("GET", "/slow", handle, role="public")
    async with running(journal, slow_route) as (server, port):
        idle, busy, fresh = await connect(port), await connect(port), await connect(port)
        await idle.send_all(get("/"))
        await idle.receive_some()
        await busy.send_all(get("/slow"))
        await journal.begun.wait()
        server.start_drain(30)
        assert await idle.receive_some() == b""
        assert await fresh.receive_some() == b""
        with pytest.raises(OSError, match="connect"):
            await connect(port)
        release.set()
        (reply,) = read_replies(await read_all(busy))
        assert (reply.body, reply.headers["connection"]) == (b"done", "close")
        for client in (idle, busy, fresh):
            await client.aclose()


async def test_a_drain_cancels_what_outlives_its_deadline(journal: Journal) -> None:
    cancelled = trio.Event()

    async def handle(_request: Request) -> Response:
        journal.begun.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError

    async with running(journal, Route("GET", "/x", handle, role="public")) as (server, port):
        client = await connect(port)
        await client.send_all(get("/x"))
        await journal.begun.wait()
        await server.drain(0.05)
        assert cancelled.is_set()
        assert await client.receive_some() == b""
        await client.aclose()


async def test_a_drain_answers_long_polls_immediately(journal: Journal) -> None:
    async def handle(request: Request) -> Response:
        journal.begun.set()
        await wait_while_wanted(request, trio.sleep_forever, 600)
        return Response(204)

    async with running(journal, Route("GET", "/x", handle, role="public")) as (server, port):
        client = await connect(port)
        await client.send_all(get("/x"))
        await journal.begun.wait()
        server.start_drain(30)
        with trio.fail_after(5):
            assert read_replies(await read_all(client))[0].status == 204
        await client.aclose()


# --------------------------------------------------------------------------------- descriptors


class FakeLimit:
    """A fake of the process's limit on open files, so that no test changes the real one."""

    def __init__(self, soft: int, hard: int) -> None:
        self.now = (soft, hard)

    def get(self, _which: int) -> tuple[int, int]:
        return self.now

    def set(self, _which: int, limits: tuple[int, int]) -> None:
        self.now = limits


@pytest.mark.parametrize(
    "soft, hard, affordable, soft_after",
    [
        (1_024, 1_048_576, 4_096, 4_096 + RESERVE),
        (1_024, resource.RLIM_INFINITY, 4_096, 4_096 + RESERVE),
        (65_536, 65_536, 4_096, 65_536),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 4_096, resource.RLIM_INFINITY),
        (1_024, 2_048, 2_048 - RESERVE, 2_048),
        (64, 64, 1, 64),
    ],
)
def test_connections_are_limited_by_the_file_descriptors_of_the_process(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, affordable: int, soft_after: int
) -> None:
    limit = FakeLimit(soft, hard)
    monkeypatch.setattr(resource, "getrlimit", limit.get)
    monkeypatch.setattr(resource, "setrlimit", limit.set)
    assert affordable_connections(4_096) == affordable
    assert limit.now == (soft_after, hard)


# ----------------------------------------------------------------------------------- listeners


async def test_a_port_in_use_is_reported_with_a_remedy() -> None:
    (listener,) = await open_listeners("127.0.0.1", 0)
    port = listener.socket.getsockname()[1]
    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port} is in use.*--port") as caught:
        await open_listeners("127.0.0.1", port)
    assert caught.value.errno == errno.EADDRINUSE
    await listener.aclose()


async def test_an_address_of_another_machine_is_reported() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1:0 is not an address of this machine"):
        await open_listeners("192.0.2.1", 0)


async def test_a_port_can_be_listened_on_again_immediately() -> None:
    (listener,) = await open_listeners("127.0.0.1", 0)
    port = listener.socket.getsockname()[1]
    client = await connect(port)
    served = await listener.accept()
    await served.aclose()
    await client.aclose()
    await listener.aclose()
    (again,) = await open_listeners("127.0.0.1", port)
    await again.aclose()


async def test_ipv6_is_listened_on_if_it_is_available(journal: Journal) -> None:
    try:
        (listener,) = await open_listeners("::1", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, [listener], small_app(journal), EdgeLimits())
        async with await trio.open_tcp_stream("::1", port) as client:
            await client.send_all(get("/"))
            await client.receive_some()
        await server.drain(1)
    assert journal.requests[0].peer.startswith("[::1]:")


async def test_all_addresses_share_one_port_that_the_system_chose() -> None:
    listeners = await open_listeners(None, 0)
    assert len({listener.socket.getsockname()[1] for listener in listeners}) == 1
    for listener in listeners:
        await listener.aclose()


@pytest.mark.parametrize(
    "address, name",
    [
        (("10.0.0.1", 80), "10.0.0.1:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        ("/run/x", "/run/x"),
        ("", "unix socket"),
    ],
)
def test_addresses_are_written_as_people_do(address: object, name: str) -> None:
    assert name_of(address) == name


async def test_a_stream_that_is_not_a_socket_has_no_address() -> None:
    near, _ = trio.testing.memory_stream_pair()
    assert peer_of(near) == "-"
