"""Decide how many connections may be open, and which makes room when no more may be.

A daemon whose clients use up every descriptor can no longer write its journal. So the soft limit is
raised as far as the hard one allows, and a reserve is kept for the daemon itself.

Anybody can open connections, so one on which no request was authorized yet, a guest, has its place
only as long as nobody else needs it: the oldest guest is closed for a newcomer. The newcomer has to
show a key in its first request (`edge.connection`), so guests cannot hold the places against each
other, and whoever has a key gets in.
"""

import logging
import resource
from collections.abc import Callable

import trio

log = logging.getLogger("distconvd.edge")

RESERVE = 128
"""Descriptors for the store, the spool, media files, listeners and the log."""


def affordable_connections(wanted: int) -> int:
    """Raise the limit for `wanted` connections; return how many of them fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    affordable = max(soft - RESERVE, 1)
    log.warning(
        "connections_max is %d, but this process may open only %d files, so it serves at most %d "
        "connections at the same time; raise the limit (ulimit -n, LimitNOFILE=)",
        wanted,
        soft,
        affordable,
    )
    return affordable


class Guests:
    """The connections that may have to make room, in the order in which they were opened."""

    def __init__(self) -> None:
        self._connections: dict[trio.CancelScope, Callable[[], bool]] = {}

    def add(self, scope: trio.CancelScope, is_guest: Callable[[], bool]) -> None:
        """Let a new connection make room from now on.

        Args:
            scope: the connection ends when it is cancelled.
            is_guest: whether no request on it has been authorized.
        """
        self._connections[scope] = is_guest

    def discard(self, scope: trio.CancelScope) -> None:
        """Forget a connection that has ended."""
        self._connections.pop(scope, None)

    def close_oldest(self) -> bool:
        """Close the guest that came first; return whether there was one."""
        while self._connections:
            scope = next(iter(self._connections))
            if self._connections.pop(scope)():
                scope.cancel()
                return True
        return False
