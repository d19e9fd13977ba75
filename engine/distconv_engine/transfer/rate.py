"""Give up a server that sends too slowly, also one that breaks off again and again."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)

import httpx
import trio

from distconv_engine.failures import TransientFault

WINDOW_S = 60.0
"""The time of waiting over which the rate is measured."""


class RateMeter:
    """Counts what a source's server sends in the time that is spent waiting for it.

    Time in which nobody waits, as while a slow encoder has enough to read, does not count.

    Args:
        least: bytes for each minute of waiting; 0: no limit.
    """

    def __init__(self, least: int = 0) -> None:
        self._least = least
        self._waited_s = 0.0
        self.received_bytes = 0

    @asynccontextmanager
    async def pieces(self, response: httpx.Response) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Read the body of a reply: yield its pieces; these raise `TransientFault` when they come too
        slowly."""
        body = response.aiter_raw()
        try:
            yield _Pieces(self, body)
        except Exception:
            await _unwind(body)
            raise

    @asynccontextmanager
    async def opened(
        self, stream: AbstractAsyncContextManager[httpx.Response]
    ) -> AsyncGenerator[httpx.Response]:
        """Open a reply, and count the time until its head has come."""
        async with AsyncExitStack() as stack:
            with self.waiting():
                response = await stack.enter_async_context(stream)
            yield response

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Count the time in the block; raises `TransientFault` when too little has come."""
        began_s = trio.current_time()
        try:
            yield
        finally:
            self._waited_s += trio.current_time() - began_s
        if self._waited_s < WINDOW_S:
            return
        received, waited_s = self.received_bytes, self._waited_s
        self._waited_s, self.received_bytes = 0.0, 0
        if received < self._least * waited_s / 60:
            raise TransientFault(
                f"The source's server sends too slowly: {received} bytes in {waited_s:.0f} s; the least"
                f" is {self._least} bytes a minute (the engine's setting source_rate_min)."
            )


async def _unwind(body: AsyncIterator[bytes]) -> None:
    """End httpx's generators from within: those that are left early it leaves to the garbage collector,
    which cannot end them in an event loop."""
    with trio.CancelScope() as scope, suppress(StopAsyncIteration, httpx.HTTPError):
        scope.cancel()
        await anext(body)


class _Pieces:
    """See `RateMeter.pieces`; no generator, since one that is left early would have to be closed."""

    def __init__(self, rate: RateMeter, body: AsyncIterator[bytes]) -> None:
        self._rate = rate
        self._body = body

    def __aiter__(self) -> "_Pieces":
        return self

    async def __anext__(self) -> bytes:
        with self._rate.waiting():
            piece = await anext(self._body)
            self._rate.received_bytes += len(piece)
        return piece
