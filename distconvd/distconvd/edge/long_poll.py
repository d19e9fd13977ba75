"""Long polls: waiting on behalf of a client that may leave, in a daemon that may stop.

The choice made here: when a client's sending side ends while a handler waits, HTTP cannot tell
"I have closed" from "I have only closed my half and still listen". So the end of its stream does
not cancel the handler, it ends the *wait*: the handler answers at once with what there is, as it
would when its time is up. A half-closed client gets a proper reply, only sooner (RFC 7240 lets
`Prefer: wait` be cut short); for one that is gone the send fails quietly, and no job is handed to
nobody. Handlers that do not wait are never disturbed. A drain ends waits in the same way.
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
        What `wait` returned, or None when it was ended. A `wait` that takes something for the
        client (an assignment) has to return it without another checkpoint, or put it back when
        it is cancelled.
    """
    if request.link is not None:
        return await request.link.wait(wait, timeout_s)
    with trio.move_on_after(timeout_s):
        return await wait()
    return None


class LongPoll:
    """The `ClientLink` of one connection; it reads ahead, so no body may be read meanwhile."""

    __slots__ = ("_ahead_bytes_max", "_drain", "_wire")

    def __init__(self, wire: ConnectionIO, drain: Drain, ahead_bytes_max: int) -> None:
        self._wire = wire
        self._drain = drain
        self._ahead_bytes_max = ahead_bytes_max

    @property
    def over(self) -> bool:
        """True once the client has hung up, as far as is known, or the daemon drains."""
        return self._wire.ended or self._drain.started

    async def wait(self, wait: Callable[[], Awaitable[T]], timeout_s: float) -> T | None:
        """Return what `wait` returns, or None when time is up or nobody waits any more."""
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
            # Not out of the nursery: it would come wrapped in an ExceptionGroup.
            raise failure
        return result

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Cancel `scope` once the client's stream ends; requests sent ahead are kept for later."""
        wire = self._wire
        bound = wire.received_bytes + self._ahead_bytes_max
        try:
            while not wire.ended:
                if wire.received_bytes > bound:
                    # Enough is buffered. Whether this client is there is found out on sending.
                    await trio.sleep_forever()
                await wire.receive()
        except ClientDisconnected:
            pass  # noted by the wire
        scope.cancel()
