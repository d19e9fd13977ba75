"""One connection's bytes: a stream, h11's state machine for it, and whether the peer is there.

The only place that moves bytes between the two, and the one that keeps the time that a peer may
take for what we send.
"""

import h11
import trio

from distconvd.edge.deadlines import Watch
from distconvd.edge.http import ClientDisconnected
from distconvd.edge.problems import NotImplementedHere
from distconvd.errors import BadRequest, BodyTooLarge, DistconvError, HeadTooLarge

RECEIVE_BYTES = 16_384
SEND_BYTES = 65_536


class ConnectionIO:
    """A stream under h11's eyes.

    Args:
        stream: the transport.
        head_bytes_max: how long a head, or a chunk's header, may be.
        send_timeout_s: how long the client may take for each `SEND_BYTES`.

    Error handling: `next_event` and `receive` raise `ClientDisconnected` when the peer is gone in
    the middle of a message, and `BadRequest`, `HeadTooLarge` or `NotImplementedHere` for what is
    not HTTP; after one of these nothing more can be read.
    """

    __slots__ = (
        "_send_timeout_s",
        "ended",
        "machine",
        "received_bytes",
        "reset",
        "sent_bytes",
        "stream",
        "watch",
    )

    def __init__(self, stream: trio.abc.Stream, head_bytes_max: int, send_timeout_s: float) -> None:
        self.stream = stream
        self._send_timeout_s = send_timeout_s
        self.watch = Watch()
        self.machine = h11.Connection(h11.SERVER, max_incomplete_event_size=head_bytes_max)
        self.received_bytes = 0
        self.sent_bytes = 0
        self.ended = False
        """The peer sends no more: it has closed, or only its half."""
        self.reset = False
        """The peer hears no more either."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return h11's next event from the bytes at hand."""
        try:
            return self.machine.next_event()
        except h11.RemoteProtocolError as fault:
            if self.ended:
                raise ClientDisconnected("closed in the middle of a message") from None
            raise _protocol_error(fault) from None

    async def receive(self) -> int:
        """Wait for more bytes and give them to h11; returns how many, 0 at the end."""
        try:
            data = await self.stream.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.ended = self.reset = True
            raise ClientDisconnected("reset while we read") from None
        self.machine.receive_data(bytes(data))
        if not data:
            self.ended = True
        self.received_bytes += len(data)
        return len(data)

    async def send(self, data: bytes) -> None:
        """Send all of it, each piece within the send timeout; else the watch ends."""
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
            self.ended = self.reset = True
            raise ClientDisconnected("gone while we replied") from None
        self.watch.rest()
        self.sent_bytes += len(piece)

    @property
    def in_sync(self) -> bool:
        """Whether both sides are done with this request and may start another."""
        return self.machine.our_state is h11.DONE and self.machine.their_state is h11.DONE


def _protocol_error(fault: h11.RemoteProtocolError) -> DistconvError:
    """Return the error that tells what h11 found wrong."""
    if fault.error_status_hint == 431:
        return HeadTooLarge("The request line and headers (or a chunk's) are too long together.")
    if fault.error_status_hint == 413:
        return BodyTooLarge("The body is longer than any that is taken here.")
    if fault.error_status_hint == 501:
        return NotImplementedHere("The only transfer coding here is 'chunked'.")
    # What follows a colon is the offending line, which may be long or anything at all.
    return BadRequest(f"This is not good HTTP/1.1: {str(fault).partition(':')[0]}.")


async def linger(stream: trio.abc.Stream, bytes_max: int) -> None:
    """Close our half and listen until the peer is through, quietly.

    Closing a socket at once while its peer still sends makes the kernel reset the connection, and
    a reset throws away what the peer has not read yet: our reply.
    """
    try:
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        received_bytes_total = 0
        while received_bytes_total < bytes_max and (data := await stream.receive_some(SEND_BYTES)):
            received_bytes_total += len(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return  # the peer is gone, so it is through
