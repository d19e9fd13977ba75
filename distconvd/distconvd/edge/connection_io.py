"""Move bytes between a connection's stream and the h11 state machine of its present request.

h11 reads requests only: each request has a machine of its own, which is not informed of the reply.
Tracking both sides of a connection in one machine cost a tenth of the time of a small request. What
this needs to know of both sides is `is_request_read` and `reply`.

Nothing else reads or writes the stream; this module also limits the time that a peer may take to
receive what we send, and records whether the peer has gone.
"""

from typing import Literal

import h11
import trio

from distconvd.edge.deadlines import Watch
from distconvd.edge.http import ClientDisconnected
from distconvd.edge.problems import NotImplementedHere
from distconvd.errors import BadRequest, BodyTooLarge, DistconvError, HeadTooLarge

RECEIVE_BYTES = 16_384
SEND_BYTES = 65_536


class ConnectionIO:
    """A stream with the state of its present request and reply.

    Args:
        stream: the transport.
        head_bytes_max: maximum length of a head, or of a chunk's header.
        send_timeout_s: time the client may take for each `SEND_BYTES`.

    Error handling: `next_event` and `receive` raise `ClientDisconnected` when the peer has gone in
    the middle of a message, and `BadRequest`, `HeadTooLarge` or `NotImplementedHere` for invalid
    HTTP; after one of these nothing more can be read.
    """

    __slots__ = (
        "_head_bytes_max",
        "_send_timeout_s",
        "input_ended",
        "is_request_read",
        "machine",
        "received_bytes",
        "reply",
        "reset",
        "sent_bytes",
        "stream",
        "watch",
    )

    def __init__(self, stream: trio.abc.Stream, head_bytes_max: int, send_timeout_s: float) -> None:
        self.stream = stream
        self._send_timeout_s = send_timeout_s
        self.watch = Watch()
        self._head_bytes_max = head_bytes_max
        self.machine = self._new_machine()
        self.is_request_read = False
        """The present request has been read to its end, body included."""
        self.reply: Literal["none", "begun", "sent"] = "none"
        """How far the reply to the present request is."""
        self.received_bytes = 0
        self.sent_bytes = 0
        self.input_ended = False
        """The peer sends no more: it has closed the connection, or only its sending half."""
        self.reset = False
        """The peer does not receive any more either."""

    def _new_machine(self) -> h11.Connection:
        return h11.Connection(h11.SERVER, max_incomplete_event_size=self._head_bytes_max)

    def next_request(self) -> None:
        """Begin with the next request; this one has been read to its end, and answered."""
        received, has_ended = self.machine.trailing_data
        self.machine = self._new_machine()
        if received:
            self.machine.receive_data(received)
        if has_ended:
            self.machine.receive_data(b"")
        self.is_request_read = False
        self.reply = "none"

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return h11's next event from the bytes received so far."""
        try:
            return self.machine.next_event()
        except h11.RemoteProtocolError as fault:
            if self.input_ended:
                raise ClientDisconnected("disconnected in the middle of a message") from None
            raise _protocol_error(fault) from None

    async def receive(self) -> int:
        """Wait for more bytes and give them to h11; returns how many, 0 at the end."""
        try:
            data = await self.stream.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.input_ended = self.reset = True
            raise ClientDisconnected("disconnected while its request was read") from None
        self.machine.receive_data(bytes(data))
        if not data:
            self.input_ended = True
        self.received_bytes += len(data)
        return len(data)

    async def send(self, data: bytes) -> None:
        """Send all of it; the watch ends the connection when a piece exceeds the send timeout."""
        if len(data) <= SEND_BYTES:
            await self._send_piece(data)
            return
        with memoryview(data) as view:
            for start in range(0, len(view), SEND_BYTES):
                await self._send_piece(view[start : start + SEND_BYTES])

    async def _send_piece(self, piece: bytes | memoryview) -> None:
        self.watch.allow(self._send_timeout_s)
        try:
            await self.stream.send_all(piece)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.input_ended = self.reset = True
            raise ClientDisconnected("disconnected before its reply was complete") from None
        self.watch.rest()
        self.sent_bytes += len(piece)


def _protocol_error(fault: h11.RemoteProtocolError) -> DistconvError:
    """Return the error that describes what h11 found wrong."""
    if fault.error_status_hint == 431:
        return HeadTooLarge("The request line and headers (or a chunk's) are too long together.")
    if fault.error_status_hint == 413:
        return BodyTooLarge("The body is longer than any that this server accepts.")
    if fault.error_status_hint == 501:
        return NotImplementedHere("The only supported transfer coding is 'chunked'.")
    # What follows a colon is the offending line, which may be long or contain anything.
    return BadRequest(f"This is not valid HTTP/1.1: {str(fault).partition(':')[0]}.")


async def linger(stream: trio.abc.Stream, bytes_max: int) -> None:
    """Close our half and read until the peer has finished; raises nothing if the peer is gone.

    Closing a socket while its peer still sends makes the kernel reset the connection, and a reset
    discards what the peer has not read yet: our reply.
    """
    try:
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        received_bytes_total = 0
        while received_bytes_total < bytes_max and (data := await stream.receive_some(SEND_BYTES)):
            received_bytes_total += len(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return  # the peer is gone, so it has finished
