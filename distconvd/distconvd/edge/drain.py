"""Wake the waiting tasks of a server when it starts to drain.

Two kinds of task would otherwise wait until their own timeout: a connection between two requests,
and a long poll. Both register a cancel scope here while they wait. That costs two set operations for
each wait; waiting for an event would cost an additional task for each.
"""

from collections.abc import Generator
from contextlib import contextmanager

import trio


class Drain:
    """Shared by all connections of one server."""

    def __init__(self) -> None:
        self.started = False
        self._scopes: set[trio.CancelScope] = set()

    def start(self) -> None:
        """Cancel all registered waits, and from now on every new one."""
        self.started = True
        for scope in self._scopes:
            scope.cancel()

    @contextmanager
    def cancels(self, scope: trio.CancelScope) -> Generator[None]:
        """Cancel `scope` if the drain starts before this block ends, or has started already."""
        self.add(scope)
        try:
            yield
        finally:
            self.discard(scope)

    def add(self, scope: trio.CancelScope) -> None:
        """Begin `cancels`, for the one caller for which a context manager costs too much."""
        if self.started:
            scope.cancel()
        self._scopes.add(scope)

    def discard(self, scope: trio.CancelScope) -> None:
        """End `cancels`."""
        self._scopes.discard(scope)
