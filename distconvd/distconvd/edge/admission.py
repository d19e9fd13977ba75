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
from typing import Protocol

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


class Caller(Protocol):
    """What `Guests` asks of a connection."""

    @property
    def is_guest(self) -> bool:
        """Whether no request on it has been authorized."""
        ...


class Guests:
    """The connections that may have to make room, in the order in which they were opened."""

    def __init__(self) -> None:
        self._scopes: dict[Caller, trio.CancelScope] = {}

    def add(self, caller: Caller, scope: trio.CancelScope) -> None:
        """Let a new connection, which ends when `scope` is cancelled, make room from now on."""
        self._scopes[caller] = scope

    def discard(self, caller: Caller) -> None:
        """Forget a connection that has ended."""
        self._scopes.pop(caller, None)

    def close_oldest(self) -> bool:
        """Close the guest that came first; return whether there was one."""
        while self._scopes:
            caller = next(iter(self._scopes))
            scope = self._scopes.pop(caller)
            if caller.is_guest:
                scope.cancel()
                return True
        return False
