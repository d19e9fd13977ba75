"""The moment at which a server starts to finish: who must be woken for it.

Two kinds of task would otherwise sit until their own time is up: a connection between two
requests, and a long poll. Both leave a cancel scope here while they wait. Scopes in a set cost two
set operations a wait; a task each that waits for an event would cost a task.
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
        """Wake everything that only waits, now and from now on."""
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
        """Begin of `cancels`, for the one place where a context manager costs too much."""
        if self.started:
            scope.cancel()
        self._scopes.add(scope)

    def discard(self, scope: trio.CancelScope) -> None:
        """End of `cancels`."""
        self._scopes.discard(scope)
