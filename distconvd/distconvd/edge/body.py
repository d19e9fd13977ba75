"""Read the body of one request on demand, at the client's pace and within limits.

The client is not asked for its body before somebody reads it: `100 Continue` is sent with the first
wait, so a request that routing or authentication rejects costs its client no upload.
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
    upload. h11 decodes the framing (Content-Length or chunked).
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
        """The announced length in bytes; None when chunked."""
        self._begin_bytes = 0
        """Offset on the wire at which a chunked body begins."""
        wire.is_request_read = self.length == 0
        if "transfer-encoding" in headers:
            self.length = None
            wire.is_request_read = False
            self._begin_bytes = wire.received_bytes - len(wire.machine.trailing_data[0])

    async def read_whole(self, limit_bytes: int | None) -> bytes:
        """Return the whole body; raises `BodyTooLarge` over the limit, if possible before reading."""
        if limit_bytes is None:
            limit_bytes = self._limits.body_bytes_max
        if self.length is not None and self.length > limit_bytes:
            raise BodyTooLarge(
                f"The body is {self.length} bytes long, but this path accepts at most {limit_bytes}."
            )
        pieces: list[bytes] = []
        while (piece := await self._next()) is not None:
            if self._read_bytes > limit_bytes:
                raise BodyTooLarge(
                    f"The body is longer than {limit_bytes} bytes, the most that this path accepts."
                )
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives, without a limit on its total length."""
        while (piece := await self._next()) is not None:
            yield piece

    def discard_nowait(self) -> bool:
        """Discard what has arrived; return whether the body is complete."""
        wire = self._wire
        if wire.machine.their_state is h11.ERROR:
            return False
        while not wire.is_request_read:
            event = wire.next_event()
            if event is h11.NEED_DATA:
                return False
            self._note(event)
        return True

    @property
    def may_discard(self) -> bool:
        """Whether the rest has a known length and is small enough to be read and discarded."""
        connection = self._wire.machine
        if connection.their_state is h11.ERROR or self._late or self.length is None:
            return False
        if connection.they_are_waiting_for_100_continue:
            return False  # it may or may not send its body now; there is no way to know
        return self.length - self._read_bytes <= self._limits.unread_bytes_max

    async def discard_rest(self) -> None:
        """Read the rest and discard it; raises as reading does."""
        while await self._next() is not None:
            pass

    async def _next(self) -> bytes | None:
        """Return the next piece, or None at the end."""
        wire = self._wire
        if wire.machine.their_state is h11.ERROR:
            return None
        while not wire.is_request_read:
            event = wire.next_event()
            if event is h11.NEED_DATA:
                await self._receive()
                continue
            self._note(event)
            if isinstance(event, h11.Data):
                self._check_framing()
                # h11 hands out bytearrays; the caller must get bytes that cannot change later.
                return bytes(event.data)
        return None

    def _note(self, event: object) -> None:
        """Count a piece of the body, and note its end."""
        if isinstance(event, h11.Data):
            self._read_bytes += len(event.data)
            # h11 has an event for the end, too, which is needed for a chunked body only.
            self._wire.is_request_read = self._read_bytes == self.length
        else:
            self._wire.is_request_read = True

    def _check_framing(self) -> None:
        self._chunks += 1
        is_fragmented = self._read_bytes < self._chunks * self._limits.chunk_bytes_mean_min
        if self._chunks > _CHUNKS_FREE and is_fragmented:
            raise BadRequest("The body's chunks are too small; send larger ones.")
        if self.length is None:
            framing_bytes = self._wire.received_bytes - self._begin_bytes - self._read_bytes
            if framing_bytes > self._read_bytes + self._limits.framing_bytes_spare:
                raise BadRequest("The body's chunk headers are larger than its content.")

    async def _receive(self) -> None:
        """Wait for bytes, within both the silence limit and the minimum rate."""
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
        """Send `100 Continue` to a client that waits for it (RFC 9110 section 10.1.1)."""
        connection = self._wire.machine
        if connection.they_are_waiting_for_100_continue:
            proceed = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await self._wire.send(connection.send(proceed))
