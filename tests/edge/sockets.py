"""A whole daemon on a real port, in this process: its routes and gate over sockets of the kernel's."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from distconvd.edge.limits import EdgeLimits
from distconvd.edge.listeners import open_listeners
from distconvd.edge.server import Server, serve
from distconvd.testing.daemon import Daemon, open_daemon

PATIENCE_S = 20
"""A conversation that takes longer hangs."""


@dataclass
class Port:
    """Where the daemon is to be reached, and the parts of it that a test looks at."""

    daemon: Daemon
    server: Server
    number: int

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.number)

    def jobs(self) -> dict[str, bytes]:
        """Return every job as it is on record."""
        return dict(self.daemon.parts.dispatcher.state.jobs)


@asynccontextmanager
async def open_port(limits: EdgeLimits | None = None, **settings: Any) -> AsyncGenerator[Port]:
    """Serve a daemon on a port of loopback; at the end no connection may be left."""
    async with open_daemon(**settings) as daemon, trio.open_nursery() as nursery:
        listeners = await open_listeners("127.0.0.1", 0)
        number = listeners[0].socket.getsockname()[1]
        serving = (serve, listeners, daemon.parts.app, limits or EdgeLimits())
        server = await nursery.start(*serving)
        yield Port(daemon, server, number)
        await server.drain(PATIENCE_S)
        assert server.connections == 0
