"""Serve one connected engine: queue what is to be sent, and decide when the connection ends.

There are two tasks: one receives, executes each message as a command and queues its ack; the other
is the only one that sends, so that frames never interleave. An ack waits until the queue has space,
which slows down an engine that sends without reading. A message that the daemon pushes does not wait:
an engine whose queue is full is too slow and is disconnected with 1013. Its leases are unaffected.

After a silence the engine is pinged, and without an answer the connection is closed with 1011, so
that no half-open connection remains. However a session ends, the engine immediately stops counting as
waiting in a long poll.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec
import trio

from distconvd.core.ledger import Ledger
from distconvd.dispatch.matching import EngineEntry
from distconvd.model.push import (
    CLOSE_NO_PONG,
    CLOSE_NOT_LET_IN,
    CLOSE_NOT_TEXT,
    CLOSE_TOO_SLOW,
    CLOSE_UNREADABLE,
    AckMessage,
    AssignedMessage,
    BenchmarkMessage,
    CancelMessage,
    DrainMessage,
    PauseMessage,
)
from distconvd.push import commands
from distconvd.push.inbox import Inbox, Unreadable, encoded
from distconvd.push.limits import PushLimits
from distconvd.push.socket import SocketClosed

log = logging.getLogger("distconvd.push")


class PushSocket(Protocol):
    """What a session needs of `distconvd.push.socket.Socket`; see there."""

    @property
    def last_received_s(self) -> float:
        """When the last byte arrived, in trio's time."""
        ...

    async def receive(self) -> str | bytes:
        """Return the next message."""
        ...

    async def send(self, text: str) -> None:
        """Send one message."""
        ...

    async def ping(self) -> None:
        """Send a ping and wait for its pong."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame with the reason, and close."""
        ...


class Ending(NamedTuple):
    """Why a session ends; code 0: the engine has gone, so no close frame is sent."""

    code: int
    reason: str


class Session:
    """The websocket of one engine; `run` returns when it is over.

    Args:
        inbox: executes the messages of the engine at the other end.
        socket: open, with the right subprotocol.
        ledger: runs the commands.
        limits: see `PushLimits`.
        is_authorized: whether the engine's key would be accepted now.
    """

    def __init__(
        self,
        inbox: Inbox,
        socket: PushSocket,
        ledger: Ledger,
        limits: PushLimits,
        is_authorized: Callable[[], bool],
    ) -> None:
        self.engine_id = inbox.engine_id
        self._socket = socket
        self._ledger = ledger
        self._limits = limits
        self._is_authorized = is_authorized
        self._recheck_at_s = trio.current_time() + limits.recheck_s
        self._inbox = inbox
        self._queue: deque[str] = deque()
        self._wake = trio.Event()
        self._has_queue_space = trio.Event()
        self._may_have_work = True
        self._ending: Ending | None = None
        self._sending = trio.CancelScope()
        self._is_pinging = False
        self._waiting_entry: EngineEntry | None = None
        self._sent_benchmark: int | None = None
        self._sent_draining = ledger.execute_nowait(commands.is_draining, self.engine_id)

    # ------------------------------------------------------------------- what others may call

    def close(self, code: int, reason: str) -> None:
        """End the session soon, for this reason; later calls do not change the reason.

        A frame that is being sent may still be completed, because a close frame inside another frame
        would not be one.
        """
        if self._ending is not None:
            return
        self._ending = Ending(code, reason)
        self._ledger.execute_nowait(commands.remove_waiter, self.engine_id, self._waiting_entry)
        self._waiting_entry = None
        late_s = trio.current_time() + self._limits.close_timeout_s
        self._sending.deadline = min(self._sending.deadline, late_s)
        self._wake.set()
        self._has_queue_space.set()
        log.info("websocket closed: %d %s", code, reason, extra={"engine_id": self.engine_id})

    @property
    def has_own_key(self) -> bool:
        """Whether its key is for this engine alone."""
        return self._inbox.has_own_key

    async def is_alive(self) -> bool:
        """Whether the engine is still there: it answers a ping, or sends anything else, in time."""
        asked_at_s, last_s = trio.current_time(), self._socket.last_received_s
        with trio.move_on_after(self._limits.takeover_timeout_s) as patience:
            try:
                await self._socket.ping()
            except SocketClosed:
                return False
        heard = self._socket.last_received_s
        is_news = not patience.cancelled_caught or (heard > last_s and heard >= asked_at_s)
        return is_news and self._ending is None

    def check_for_work(self) -> None:
        """Have the engine's unacknowledged assignments sent."""
        self._may_have_work = True
        self._wake.set()

    def cancel(self, job_id: str, attempt: int) -> None:
        """Send a request to stop an attempt."""
        self._push(CancelMessage(job_id, attempt))

    def pause(self, job_id: str, attempt: int, *, paused: bool) -> None:
        """Send a request to pause an attempt, or to continue it."""
        self._push(PauseMessage(job_id, attempt, paused))

    def ask_for_benchmark(self, requested_at: int | None) -> None:
        """Ask the engine for a new benchmark, unless this request has been sent already."""
        if requested_at not in (None, self._sent_benchmark):
            self._push(BenchmarkMessage(requested_at))
        self._sent_benchmark = requested_at

    def send_draining(self, *, draining: bool) -> None:
        """Notify the engine that it is draining, or that it no longer is, if that has changed."""
        if draining != self._sent_draining:
            self._sent_draining = draining
            self._push(DrainMessage(draining))

    # -------------------------------------------------------------------------------- the run

    async def run(self) -> None:
        """Serve the engine until either side ends the session."""
        self._ledger.execute_nowait(commands.mark_unacked, self.engine_id)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive_forever)
                is_clean = await self._send_forever(nursery)
                nursery.cancel_scope.cancel()
        finally:
            self.close(0, "")
        if is_clean and self._ending is not None and self._ending.code:
            await self._socket.close(*self._ending)

    async def _receive_forever(self) -> None:
        while True:
            try:
                message = await self._socket.receive()
            except SocketClosed as end:
                self.close(0, str(end))
                return
            if isinstance(message, bytes):
                self.close(CLOSE_NOT_TEXT, "messages must be JSON text")
                return
            try:
                ack = await self._inbox.answer(message)
            except Unreadable as fault:
                self.close(CLOSE_UNREADABLE, str(fault))
                return
            await self._answer(ack)

    async def _answer(self, ack: AckMessage) -> None:
        """Queue an ack once the queue has space."""
        while len(self._queue) >= self._limits.queue_messages_max and self._ending is None:
            self._has_queue_space = trio.Event()
            await self._has_queue_space.wait()
        self._queue.append(encoded(ack))
        # A heartbeat may have registered the engine, or shown that it missed an assignment.
        self.check_for_work()

    def _push(self, message: msgspec.Struct) -> None:
        """Queue a message that the daemon pushes; disconnect the engine if its queue is full."""
        if self._ending is not None:
            return
        if len(self._queue) >= self._limits.queue_messages_max:
            self.close(CLOSE_TOO_SLOW, "the engine reads too slowly")
            return
        self._queue.append(encoded(message))
        self._wake.set()

    # ------------------------------------------------------------------------------- sending

    async def _send_forever(self, nursery: trio.Nursery) -> bool:
        """Send queued messages and assignments; return whether the last frame was sent whole."""
        while self._ending is None:
            self._wake = trio.Event()
            if not self._is_still_authorized():
                self.close(CLOSE_NOT_LET_IN, "the key is no longer accepted")
            elif self._queue:
                text = self._queue.popleft()
                self._has_queue_space.set()
                if not await self._send(text):
                    return False
            elif self._may_have_work:
                self._may_have_work = False
                if not await self._deliver():
                    return False
            else:
                await self._wait(nursery)
        return True

    def _is_still_authorized(self) -> bool:
        """Whether the key was still accepted at its last check; checks it again when that is due."""
        if trio.current_time() < self._recheck_at_s:
            return True
        self._recheck_at_s = trio.current_time() + self._limits.recheck_s
        return self._is_authorized()

    async def _wait(self, nursery: trio.Nursery) -> None:
        """Wait for something to send; after a long silence, ping the engine."""
        with trio.move_on_after(self._limits.ping_s) as silence:
            await self._wake.wait()
        if silence.cancelled_caught:
            # A heartbeat over HTTP can make an assignment unacknowledged again without an event.
            self._may_have_work = True
            is_silent = trio.current_time() - self._socket.last_received_s >= self._limits.ping_s
            if is_silent and not self._is_pinging:
                self._is_pinging = True
                nursery.start_soon(self._ping)

    async def _ping(self) -> None:
        asked_at_s = trio.current_time()
        with trio.move_on_after(self._limits.pong_timeout_s) as patience:
            try:
                await self._socket.ping()
            except SocketClosed as end:
                self.close(0, str(end))
        if patience.cancelled_caught and self._socket.last_received_s <= asked_at_s:
            self.close(CLOSE_NO_PONG, "no answer to a ping")
        self._is_pinging = False

    async def _deliver(self) -> bool:
        """Send every assignment that is durable and not sent yet; return as `_send` does."""
        ledger, engine_id = self._ledger, self.engine_id
        self._waiting_entry = ledger.execute_nowait(
            commands.ensure_waiter, engine_id, self._waiting_entry
        )
        while ledger.execute_nowait(commands.next_unacked, engine_id) is not None:
            found = await ledger.execute(commands.next_unacked, engine_id)
            if found is None or self._ending is not None:
                break
            job_id, record = found
            if not await self._send(encoded(AssignedMessage(msgspec.Raw(record)))):
                return False
            ledger.execute_nowait(commands.mark_sent, engine_id, job_id)
        return True

    async def _send(self, text: str) -> bool:
        """Send one message; return whether it was sent whole."""
        with trio.move_on_after(self._limits.send_timeout_s) as self._sending:
            try:
                await self._socket.send(text)
            except SocketClosed as end:
                self.close(0, str(end))
                return False
        if self._sending.cancelled_caught:
            self.close(CLOSE_TOO_SLOW, "the engine reads too slowly")
            return False
        return True
