"""Serve a whole daemon on a real port, in this process, over the kernel's sockets."""

import gc
import os
import socket
import struct
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import trio
from trio._core._run import GLOBAL_RUN_CONTEXT

from distconvd.edge.limits import EdgeLimits
from distconvd.edge.listeners import open_listeners
from distconvd.edge.server import Server, serve
from distconvd.edge.tls import TlsFiles, TlsListener
from distconvd.testing.daemon import Daemon, open_daemon

PATIENCE_S = 20
"""A conversation that takes longer hangs."""


class CountingListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener that counts: a client may leave before the daemon has accepted it."""

    def __init__(self, inner: trio.SocketListener | TlsListener) -> None:
        self._inner = inner
        self.accepted = 0

    async def accept(self) -> trio.abc.Stream:
        stream = await self._inner.accept()
        self.accepted += 1
        return stream

    async def aclose(self) -> None:
        await self._inner.aclose()


@dataclass
class Port:
    """The daemon's port, and the parts of the daemon that a test inspects."""

    daemon: Daemon
    server: Server
    number: int
    listeners: "list[CountingListener]"
    opened: int = 0

    async def connect(self) -> trio.SocketStream:
        """Return a new connection. The kernel accepts it immediately, whether the daemon is ready."""
        await trio.lowlevel.checkpoint()
        client = socket.create_connection(("127.0.0.1", self.number), PATIENCE_S)
        client.setblocking(False)
        self.opened += 1
        return trio.SocketStream(trio.socket.from_stdlib_socket(client))

    async def wait_until_left(self) -> None:
        """Wait until the daemon has accepted every connection, and no client is connected any more."""
        with trio.fail_after(PATIENCE_S):
            while self.accepted < self.opened or self.server.connections:
                await trio.sleep(0.001)

    @property
    def accepted(self) -> int:
        """The number of connections that the daemon has taken from the kernel."""
        return sum(one.accepted for one in self.listeners)

    def jobs(self) -> dict[str, bytes]:
        """Return every job as it is stored."""
        return dict(self.daemon.parts.dispatcher.state.jobs)


@asynccontextmanager
async def open_port(
    limits: EdgeLimits | None = None, *, tls: TlsFiles | None = None, **settings: Any
) -> AsyncGenerator[Port]:
    """Serve a daemon on a loopback port; at the end no connection may be left."""
    async with open_daemon(**settings) as daemon, trio.open_nursery() as nursery:
        listeners = await open_listeners("127.0.0.1", 0)
        number = listeners[0].socket.getsockname()[1]
        served = [
            CountingListener(one if tls is None else TlsListener(one, tls)) for one in listeners
        ]
        server = await nursery.start(serve, served, daemon.parts.app, limits or EdgeLimits())
        yield Port(daemon, server, number, served)
        await server.drain(PATIENCE_S)
        assert server.connections == 0


async def reset(client: trio.SocketStream) -> None:
    """Close the connection with a reset instead of an orderly end."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await client.aclose()


async def take_all(client: trio.SocketStream) -> bytes:
    """Return what the daemon sends until the connection ends, also by a reset."""
    said = bytearray()
    try:
        async for data in client:
            said += data
    except trio.BrokenResourceError:
        pass  # it was reset, which is an end as well
    return bytes(said)


async def send_until_refused(client: trio.SocketStream, piece: bytes, number: int) -> None:
    """Send a piece several times, or until the daemon closes the connection."""
    try:
        for _ in range(number):
            await client.send_all(piece)
    except trio.BrokenResourceError:
        return


class OpenConnections(NamedTuple):
    """Resources of the process: anything left of a connection shows in one of these."""

    descriptors: int
    tasks: int
    blocks: int
    """Memory blocks, as Python counts them: less than one for each object."""

    @classmethod
    def now(cls) -> "OpenConnections":
        # trio drops the deadlines of what has been cancelled only once there are a thousand of them.
        GLOBAL_RUN_CONTEXT.runner.deadlines._prune()
        gc.collect()
        return cls(
            len(os.listdir("/proc/self/fd")),
            trio.lowlevel.current_statistics().tasks_living,
            sys.getallocatedblocks(),
        )
