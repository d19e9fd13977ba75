"""The body of one request, read on demand and at the client's pace, within limits.

Nothing is asked of the client before somebody reads: `100 Continue` goes out with the first wait,
so a request that routing or authentication refuses costs its client no upload.
"""

from collections.abc import AsyncIterator, Mapping

import h11
import trio

from distconvd.edge.connection_io import ConnectionIO
from distconvd.edge.limits import EdgeLimits
from distconvd.errors import BadRequest, BodyTooLarge, RequestTimeout

_CHUNKS_FREE = 1_000


class RequestBody:
    """The `BodyReader` of one request.

    Only time spent waiting for the client counts against it, so a slow disk of ours never ends an
    upload. Framing (Content-Length or chunked) is h11's.
    """

    __slots__ = (
        "_begin_bytes",
        "_chunks",
        "_late",
        "_limits",
        "_read_bytes",
        "_waited_s",
        "_wire",
        "length",
    )

    def __init__(self, wire: ConnectionIO, limits: EdgeLimits, headers: Mapping[str, str]) -> None:
        self._wire = wire
        self._limits = limits
        self._waited_s = 0.0
        self._read_bytes = 0
        self._chunks = 0
        self._late = False
        self.length: int | None = int(headers.get("content-length", "0"))
        """As announced; None when chunked."""
        self._begin_bytes = 0
        """Where on the wire a chunked body begins."""
        if "transfer-encoding" in headers:
            self.length = None
            self._begin_bytes = wire.received_bytes - len(wire.machine.trailing_data[0])

    async def read_whole(self, limit_bytes: int | None) -> bytes:
        """Return the whole body; raises `BodyTooLarge` past the limit, before reading if it can."""
        if limit_bytes is None:
            limit_bytes = self._limits.body_bytes_max
        if self.length is not None and self.length > limit_bytes:
            raise BodyTooLarge(
                f"The body is {self.length} bytes long; at most {limit_bytes} are taken here."
            )
        pieces: list[bytes] = []
        while (piece := await self._next()) is not None:
            if self._read_bytes > limit_bytes:
                raise BodyTooLarge(f"The body is over {limit_bytes} bytes, the most taken here.")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives, without a limit on its sum."""
        while (piece := await self._next()) is not None:
            yield piece

    def swallow_nowait(self) -> bool:
        """Throw away what has arrived; tell whether the body is over."""
        if self._wire.machine.their_state is not h11.SEND_BODY:
            return self._wire.machine.their_state is not h11.ERROR
        while (event := self._wire.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Data):
                self._read_bytes += len(event.data)
            else:
                return True
        return False

    @property
    def may_swallow(self) -> bool:
        """Whether the rest is announced and small enough to read it only to throw it away."""
        connection = self._wire.machine
        if connection.their_state is not h11.SEND_BODY or self._late or self.length is None:
            return False
        if connection.they_are_waiting_for_100_continue:
            return False  # it may send its body now, or not: only it knows
        return self.length - self._read_bytes <= self._limits.unread_bytes_max

    async def swallow(self) -> None:
        """Read the rest and throw it away; raises as reading does."""
        while await self._next() is not None:
            pass

    async def _next(self) -> bytes | None:
        """Return the next piece, None at the end."""
        wire = self._wire
        if wire.machine.their_state is not h11.SEND_BODY:
            return None
        while True:
            event = wire.next_event()
            if isinstance(event, h11.Data):
                self._count(len(event.data))
                # h11 hands out bytearrays; what leaves here is not to change under its holder.
                return bytes(event.data)
            if event is not h11.NEED_DATA:
                return None
            await self._receive()

    def _count(self, size: int) -> None:
        self._read_bytes += size
        self._chunks += 1
        spared = self._chunks - _CHUNKS_FREE
        if spared > 0 and self._read_bytes < self._chunks * self._limits.chunk_bytes_mean_min:
            raise BadRequest("The body comes in chunks of absurdly few bytes; send larger ones.")
        if self.length is None:
            framing_bytes = self._wire.received_bytes - self._begin_bytes - self._read_bytes
            if framing_bytes > self._read_bytes + self._limits.framing_bytes_spare:
                raise BadRequest("The body has more bytes round its chunks than in them.")

    async def _receive(self) -> None:
        """Wait for bytes, within both the silence limit and the rate limit."""
        limits = self._limits
        credit_s = limits.body_timeout_s + self._read_bytes / limits.body_rate_min_bytes_s
        patience_s = min(limits.body_timeout_s, credit_s - self._waited_s)
        started = trio.current_time()
        with trio.move_on_after(max(patience_s, 0)) as scope:
            await self._continue()
            await self._wire.receive()
        if scope.cancelled_caught:
            self._late = True
            raise RequestTimeout("The body did not arrive in time.")
        self._waited_s += trio.current_time() - started

    async def _continue(self) -> None:
        """Tell a client that asked (RFC 9110 section 10.1.1) to go on with its body."""
        connection = self._wire.machine
        if connection.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await self._wire.send(connection.send(go_on))
