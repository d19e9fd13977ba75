"""Provide a small app, connections in memory, and a strict parser of replies.

`Site` serves an app on memory streams, so that a test decides what arrives when. `read_replies`
lets h11's client side parse what came back: what it accepts to the last byte is well-formed.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import trio
from trio.testing import memory_stream_pair

from distconvd.edge.access import Exchange
from distconvd.edge.admission import Guests
from distconvd.edge.app import App, AppSlot
from distconvd.edge.connection import serve_connection
from distconvd.edge.deadlines import Deadlines, keep_deadlines
from distconvd.edge.drain import Drain
from distconvd.edge.http import Principal, Request, Response, Route
from distconvd.edge.limits import EdgeLimits
from distconvd.errors import NotFound, Unauthorized

KEY = "X-API-Key: good"


@dataclass
class Reply:
    """One reply as a client sees it."""

    status: int
    headers: dict[str, str]
    body: bytes
    interim: list[int] = field(default_factory=list)


def read_replies(data: bytes, methods: Sequence[str] = ("GET",) * 1000) -> list[Reply]:
    """Parse all that a server sent; raises for anything that is not a sequence of whole replies."""
    replies: list[Reply] = []
    for method in methods:
        if not data:
            return replies
        reply, data = _read_one(data, method)
        replies.append(reply)
    assert not data, f"after the last reply: {data!r}"
    return replies


def _read_one(data: bytes, method: str) -> tuple[Reply, bytes]:
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1_000_000)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    client.receive_data(b"")
    reply = Reply(0, {}, b"")
    while True:
        event: Any = client.next_event()
        if isinstance(event, h11.InformationalResponse):
            reply.interim.append(event.status_code)
        elif isinstance(event, h11.Response):
            reply.status = event.status_code
            reply.headers = {n.decode(): v.decode("latin-1") for n, v in event.headers}
            assert event.reason
        elif isinstance(event, h11.Data):
            reply.body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return reply, client.trailing_data[0]
        else:
            raise AssertionError(f"no whole reply in {data!r}")


# ------------------------------------------------------------------------------------- a small app


class Journal:
    """What the app's handlers and observers saw."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.exchanges: list[Exchange] = []
        self.begun = trio.Event()
        self.begun_bodies = 0
        self.closed_bodies = 0


def authenticate(request: Request, _route: Route) -> Principal:
    if request.headers.get("x-api-key") != "good":
        raise Unauthorized("Unauthorized")
    return Principal("tester", frozenset({"admin"}))


def small_app(journal: Journal, *extra: Route) -> App:
    """Return an app with one route for each thing that the edge does."""

    async def hello(request: Request) -> Response:
        journal.requests.append(request)
        request.log["job_id"] = "17"
        return Response(200, b'{"hello":1}')

    async def echo(request: Request) -> Response:
        journal.requests.append(request)
        return Response(200, request.body, "text/plain")

    async def count(request: Request) -> Response:
        journal.begun.set()
        size = 0
        async for chunk in request.reader.chunks():
            size += len(chunk)
        return Response(200, b"%d" % size, "text/plain")

    async def ignore(_request: Request) -> Response:
        return Response(200, b"ignored", "text/plain")

    async def crash(_request: Request) -> Response:
        raise RuntimeError("a bug")

    async def missing(_request: Request) -> Response:
        raise NotFound("Job not found", field="job_id")

    async def nothing(_request: Request) -> Response:
        return Response(204)

    async def stream(_request: Request) -> Response:
        return Response(200, pieces(journal, 3), "text/plain")

    async def wait(_request: Request) -> Response:
        journal.begun.set()
        await trio.sleep(5)
        return Response(200, b"waited", "text/plain")

    async def item(request: Request) -> Response:
        journal.requests.append(request)
        return Response(200, repr(dict(request.params)).encode(), "text/plain")

    routes = [
        Route("GET", "/", hello, role="public"),
        Route("GET", "/locked", hello),
        Route("POST", "/echo", echo, role="public", body="whole"),
        Route("POST", "/small", echo, role="public", body="whole", body_limit_bytes=10),
        Route("POST", "/locked", echo, body="whole"),
        Route("PUT", "/count", count, role="public", body="stream", content_types=("*/*",)),
        Route("POST", "/ignore", ignore, role="public"),
        Route("GET", "/crash", crash, role="public"),
        Route("GET", "/missing", missing, role="public"),
        Route("GET", "/nothing", nothing, role="public"),
        Route("GET", "/stream", stream, role="public"),
        Route("GET", "/wait", wait, role="public"),
        Route("GET", "/jobs/{id}", item, role="public"),
        Route("GET", "/media/{name...}", item, role="public"),
        *extra,
    ]
    return App(routes, authenticate, observers=[journal.exchanges.append])


async def pieces(journal: Journal, number: int) -> AsyncIterator[bytes]:
    journal.begun_bodies += 1
    try:
        for piece in range(number):
            await trio.lowlevel.checkpoint()
            yield b"piece %d\n" % piece
    finally:
        journal.closed_bodies += 1


# ------------------------------------------------------------------------------- in-memory serving


class Site:
    """An app that is served on memory streams; created by `open_site`."""

    def __init__(self, nursery: trio.Nursery, app: App, limits: EdgeLimits) -> None:
        self._nursery = nursery
        self._app = app
        self.limits = limits
        self.drain = Drain()
        self.deadlines = Deadlines()
        self.open = 0
        """Connections that are still served."""

    def connect(self, pair: Any = memory_stream_pair) -> Any:
        """Return the client's end of a new connection."""
        client, server = pair()
        self.open += 1
        self._nursery.start_soon(self._serve, server)
        return client

    async def _serve(self, stream: trio.abc.Stream) -> None:
        await serve_connection(
            stream,
            app_slot=AppSlot(self._app),
            limits=self.limits,
            peer="client:1",
            drain=self.drain,
            deadlines=self.deadlines,
            guests=Guests(),
        )
        self.open -= 1

    async def talk(self, *sent: bytes, half_close: bool = True) -> bytes:
        """Send some bytes, end our half, and return everything that the server sends until the close."""
        client = self.connect()
        try:
            for data in sent:
                await client.send_all(data)
                await trio.testing.wait_all_tasks_blocked()
            if half_close:
                await client.send_eof()
        except trio.BrokenResourceError:
            pass  # the server has closed already
        return await read_all(client)

    async def ask(self, *sent: bytes, methods: Sequence[str] = ("GET",) * 1000) -> list[Reply]:
        """`talk`, parsed."""
        return read_replies(await self.talk(*sent), methods)


async def read_all(client: trio.abc.ReceiveStream) -> bytes:
    said = bytearray()
    async for data in client:
        said += data
    return bytes(said)


@asynccontextmanager
async def open_site(
    app: App | None = None, limits: EdgeLimits | None = None
) -> AsyncGenerator[Site]:
    """Serve until the block ends; connections that are still open then are cancelled."""
    limits = limits or EdgeLimits()
    async with trio.open_nursery() as nursery:
        site = Site(nursery, app or small_app(Journal()), limits)
        async with keep_deadlines(limits, site.deadlines):
            yield site
        nursery.cancel_scope.cancel()


def get(path: str, *headers: str, version: str = "1.1", method: str = "GET") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: x", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def post(path: str, body: bytes, *headers: str, method: str = "POST") -> bytes:
    return get(path, f"Content-Length: {len(body)}", *headers, method=method) + body


def chunked(*chunks: bytes) -> bytes:
    parts = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b"")]
    return b"".join(parts)
