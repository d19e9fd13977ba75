"""Run a whole daemon in a test: real bytes on memory streams, memory store, virtual time.

For plugin authors and for our own tests. Everything between the HTTP bytes and the store is real, made
by the same composition root as the command `distconvd`; only sockets, the disk and the clock are
replaced. Under trio's `autojump_clock` a minute of lease costs no time.

    from distconvd.testing.daemon import Daemon, open_daemon

    async def test_my_policy_prefers_the_night(autojump_clock):
        async with open_daemon(plugins=["my_policy.py"], policy="nightly") as daemon:
            await daemon.client.post("/jobs/", {"source_url": …, "target_codec": "h264"})

or, with `pytest_plugins = ["distconvd.testing.daemon"]` in the top `conftest.py`, by asking for the
fixture `daemon` (and for `autojump_clock`, where the test waits). Needs pytest-trio.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any, cast

import h11
import msgspec
import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair

from distconvd.config import load_config
from distconvd.daemon import Parts, assemble, run
from distconvd.plugin_host.loading import Plugins
from distconvd.plugin_host.services import plain_refusals
from distconvd.store import Store
from distconvd.testing.clock import WALL_MS, VirtualClock

__all__ = ["KEY", "WALL_MS", "Client", "Daemon", "MemoryListener", "Reply", "daemon", "open_daemon"]

KEY = "test-key"


@dataclass
class Reply:
    """One HTTP reply."""

    status: int
    headers: dict[str, str] = field(default_factory=dict[str, str])
    """By lower-case name."""
    body: bytes = b""

    def json(self) -> Any:
        """Return the body as JSON."""
        return msgspec.json.decode(self.body)

    @property
    def lines(self) -> list[Any]:
        """The values of an NDJSON body."""
        return [msgspec.json.decode(line) for line in self.body.splitlines()]


class Client:
    """An HTTP client of one daemon; every request has its own connection.

    Args:
        daemon: the daemon to call.
        headers: sent with every request.
    """

    def __init__(self, daemon: "Daemon", headers: Mapping[str, str]) -> None:
        self._daemon = daemon
        self._headers = dict(headers)

    async def request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Make one request and return the whole reply.

        Args:
            method: such as `GET`.
            path: the target as it goes on the wire, percent-encoded where necessary.
            body: bytes are sent as they are, None is no body, anything else is sent as JSON.
            headers: more headers; they replace the client's own of the same name.

        Raises `trio.BrokenResourceError` or `h11.RemoteProtocolError` for a broken reply.
        """
        async with self.exchange(method, path, body, headers) as (reply, chunks):
            reply.body = b"".join([chunk async for chunk in chunks])
        return reply

    async def get(self, path: str, **headers: str) -> Reply:
        """`GET`; keyword `if_none_match="x"` is the header `If-None-Match: x`."""
        return await self.request("GET", path, None, _named(headers))

    async def post(self, path: str, body: object = None, **headers: str) -> Reply:
        """`POST`."""
        return await self.request("POST", path, body, _named(headers))

    async def patch(self, path: str, body: object = None, **headers: str) -> Reply:
        """`PATCH`."""
        return await self.request("PATCH", path, body, _named(headers))

    async def delete(self, path: str, **headers: str) -> Reply:
        """`DELETE`."""
        return await self.request("DELETE", path, None, _named(headers))

    @asynccontextmanager
    async def exchange(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[tuple[Reply, AsyncIterator[bytes]]]:
        """Make one request and yield the reply's head and the parts of its body as they come.

        Leaving the block closes the connection, whether or not the reply has ended.
        """
        stream = await self._daemon.connect()
        async with stream:
            machine = h11.Connection(h11.CLIENT)
            await stream.send_all(_request_bytes(machine, method, path, body, self._all(headers)))
            head = cast("h11.Response", await _next_event(machine, stream))
            names = {n.decode(): v.decode("latin-1") for n, v in head.headers}
            yield Reply(head.status_code, names), _Pieces(machine, stream)

    def _all(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        given = {name.lower(): value for name, value in (headers or {}).items()}
        return {"host": "daemon", **self._headers, **given}


class Daemon:
    """A running daemon; `open_daemon` makes one.

    Attributes:
        parts: all parts of the daemon, for tests that look inside.
        client: an HTTP client with the right key (`X-API-Key`).
        anonymous: an HTTP client without a key.
    """

    def __init__(self, parts: Parts, connections: trio.MemorySendChannel[trio.abc.Stream]) -> None:
        self.parts = parts
        self._connections = connections
        self._stop = trio.Event()
        self.client = self.client_with({"x-api-key": KEY})
        self.anonymous = self.client_with({})

    @property
    def store(self) -> Store:
        """The store in use; `distconv_plugins.stores.memory.MemoryStore` unless another was given."""
        return self.parts.store

    def client_with(self, headers: Mapping[str, str]) -> Client:
        """Return an HTTP client that sends these headers with every request."""
        return Client(self, headers)

    async def connect(self, *, slow: bool = False) -> trio.abc.Stream:
        """Return the client's end of a new connection, for tests that send their own bytes.

        With `slow` nothing is buffered between: the daemon sends no faster than the test reads.
        """
        ours, theirs = lockstep_stream_pair() if slow else memory_stream_pair()
        await self._connections.send(theirs)
        return ours

    def stop(self) -> None:
        """Do what SIGTERM does: drain. `open_daemon` does it at the end of its block anyway."""
        self._stop.set()

    async def run(
        self, listener: trio.abc.Listener[trio.abc.Stream], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Run until stopped; `open_daemon` calls it."""
        await run(self.parts, [listener], self._stop, task_status=task_status)


@asynccontextmanager
async def open_daemon(
    *,
    plugins: Sequence[str] = (),
    store: Store | None = None,
    clock: VirtualClock | None = None,
    **settings: Any,
) -> AsyncGenerator[Daemon]:
    """Run a daemon during the block, then drain it and close its store.

    Args:
        plugins: files or modules to load in addition to the installed ones, as with `--plugin`.
        store: the store to use instead of a new memory store, for example one that fails.
        clock: the wall clock; by default one that begins at `WALL_MS`.
        settings: values as in the configuration file: `policy="mine"`, `dispatch={"lease_s": 5}`.

    Raises: what the start of the real daemon raises, for example `ConfigError`.
    """
    with TemporaryDirectory(prefix="distconvd-") as directory:
        values: dict[str, Any] = {"api_key": KEY, "store": "memory", "plugins": list(plugins)}
        values |= {"media_dir": directory, **settings}
        config = load_config(values, {}).config
        parts = await assemble(
            config, Plugins(config.plugins), store=store, now=(clock or VirtualClock()).now
        )
        send, receive = trio.open_memory_channel[trio.abc.Stream](0)
        daemon = Daemon(parts, send)
        with plain_refusals():
            async with trio.open_nursery() as nursery:
                await nursery.start(daemon.run, MemoryListener(receive))
                try:
                    yield daemon
                finally:
                    daemon.stop()


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts the connections that come out of a channel."""

    def __init__(self, connections: trio.MemoryReceiveChannel[trio.abc.Stream]) -> None:
        self._connections = connections

    async def accept(self) -> trio.abc.Stream:
        """Return the next connection."""
        try:
            return await self._connections.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    async def aclose(self) -> None:
        """Accept no more; a client that connects then gets `trio.BrokenResourceError`."""
        await self._connections.aclose()


@pytest.fixture
async def daemon() -> AsyncGenerator[Daemon]:
    """A daemon with the default settings and an API key (`KEY`).

    A test that waits names `autojump_clock` among its own arguments, the only place where pytest-trio
    looks for a clock; then waiting costs no time.
    """
    async with open_daemon() as opened:
        yield opened


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _request_bytes(
    machine: h11.Connection, method: str, path: str, body: object, headers: dict[str, str]
) -> bytes:
    """Return the bytes of a whole request, with `Content-Type: application/json` if it has a body."""
    raw = b""
    if isinstance(body, bytes):
        raw = body
    elif body is not None:
        raw = msgspec.json.encode(body)
    if body is not None:
        headers = {"content-type": "application/json", "content-length": str(len(raw)), **headers}
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    head = machine.send(h11.Request(method=method, target=path, headers=fields))
    rest = machine.send(h11.Data(data=raw)) if raw else b""
    return (head or b"") + (rest or b"") + (machine.send(h11.EndOfMessage()) or b"")


async def _next_event(machine: h11.Connection, stream: trio.abc.Stream) -> object:
    while True:
        event = machine.next_event()
        if isinstance(event, h11.InformationalResponse):
            continue
        if event is not h11.NEED_DATA:
            return event
        machine.receive_data(bytes(await stream.receive_some()))


class _Pieces(AsyncIterator[bytes]):
    """A reply's body as it comes. Not a generator: a reader that stops early would have to close it."""

    def __init__(self, machine: h11.Connection, stream: trio.abc.Stream) -> None:
        self._machine = machine
        self._stream = stream

    async def __anext__(self) -> bytes:
        event = await _next_event(self._machine, self._stream)
        if not isinstance(event, h11.Data):
            raise StopAsyncIteration
        return bytes(event.data)
