"""Wait on behalf of a client that may leave, in a daemon that may drain.

When a client's sending side ends while a handler waits, HTTP cannot distinguish a client that has
gone from one that has closed only its half and still reads. So the end of its stream does not cancel
the handler but ends the *wait*: the handler answers immediately with what there is, as it does on
timeout. A half-closed client gets a proper reply, only sooner (RFC 7240 lets `Prefer: wait` be cut
short); for one that has gone the send fails quietly, and no job is lost with it. Handlers that do not
wait are never interrupted. A drain ends waits in the same way.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from distconvd.edge.connection_io import ConnectionIO
from distconvd.edge.drain import Drain
from distconvd.edge.http import ClientDisconnected, Request

T = TypeVar("T")


async def wait_while_wanted(
    request: Request, wait: Callable[[], Awaitable[T]], timeout_s: float
) -> T | None:
    """Await `wait()` for at most `timeout_s`, while the client is there and no drain has begun.

    Returns:
        What `wait` returned, or None when it was cut short. A `wait` that takes something for the
        client (an assignment) must return it without another checkpoint, or put it back when it
        is cancelled.
    """
    if request.link is not None:
        return await request.link.wait(wait, timeout_s)
    with trio.move_on_after(timeout_s):
        return await wait()
    return None


class LongPoll:
    """The `ClientLink` of one connection; it reads ahead, so no body may be read during a wait."""

    __slots__ = ("_ahead_bytes_max", "_drain", "_wire")

    def __init__(self, wire: ConnectionIO, drain: Drain, ahead_bytes_max: int) -> None:
        self._wire = wire
        self._drain = drain
        self._ahead_bytes_max = ahead_bytes_max

    @property
    def over(self) -> bool:
        """True once the client is known to have hung up, or the daemon drains."""
        return self._wire.input_ended or self._drain.started

    async def wait(self, wait: Callable[[], Awaitable[T]], timeout_s: float) -> T | None:
        """Return what `wait` returns, or None on timeout or when nobody waits any more."""
        result: T | None = None
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            with self._drain.cancels(nursery.cancel_scope), trio.move_on_after(timeout_s):
                try:
                    result = await wait()
                except Exception as error:  # noqa: BLE001 - raised below, outside the nursery
                    failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            # Not raised inside the nursery, which would wrap it in an ExceptionGroup.
            raise failure
        return result

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Cancel `scope` once the client's stream ends; requests sent ahead stay buffered."""
        wire = self._wire
        bound = wire.received_bytes + self._ahead_bytes_max
        try:
            while not wire.input_ended:
                if wire.received_bytes > bound:
                    # Enough is buffered: whether the client has gone will show when we reply.
                    await trio.sleep_forever()
                await wire.receive()
        except ClientDisconnected:
            pass  # `ConnectionIO` has recorded it
        scope.cancel()
