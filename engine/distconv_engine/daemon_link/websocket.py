"""Keep a websocket to the daemon, which pushes jobs, cancels, pauses and drains over it.

While it is open, heartbeats, progress and the outbox's reports go over it and are acknowledged
there; assignments, cancels and pauses arrive over it, and no long poll is made. While it is not,
all of that goes by HTTP, and the engine asks for work. A message whose ack does not arrive is sent
again by HTTP: the daemon accepts either, and applies it once. So losing the socket changes nothing
for what is being encoded, and nothing here is ever stored.

After a loss it is opened again with backoff; rarely if the daemon has none; and never after another
engine with the same id has replaced it: the two would replace each other endlessly, and do each job
twice.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import msgspec
import trio

from distconv_engine.attempts.active import ActiveAttempts
from distconv_engine.backoff import Backoff
from distconv_engine.daemon_link.http import DaemonUnavailable, Rejected, fault_of
from distconv_engine.daemon_link.socket import Closed, EngineSocket, NotSupported
from distconv_engine.logs import Log
from distconvd.model import Job, Verdict
from distconvd.model.push import (
    CLOSE_REPLACED,
    AckMessage,
    AssignedMessage,
    BenchmarkMessage,
    CancelMessage,
    PauseMessage,
    ToEngine,
)

ACK_S = 10.0
"""If an ack takes longer, the socket is closed and HTTP is used."""
PING_S = 15.0
PONG_S = 10.0
RETRY_UPGRADE_S = 300.0
"""How long to wait before trying a daemon again that has no websocket."""

OpenSocket = Callable[[], AbstractAsyncContextManager[EngineSocket]]
_decoder: msgspec.json.Decoder[ToEngine] = msgspec.json.Decoder(ToEngine)


def _nothing(*_: object) -> None:
    """Ignore the call."""


class _Unacked:
    """A message that waits for its ack."""

    def __init__(self) -> None:
        self.finished = trio.Event()
        self.ack: AckMessage | None = None


class PushLink:
    """The websocket, while there is one; `run` keeps it open.

    Args:
        open_socket: opens one.
        active_attempts: to which cancels and pauses apply.
        log: for what a person should know.
        on_benchmark: called when the daemon requests a new benchmark.
        on_replaced: called once another engine has connected with the same id.
    """

    def __init__(
        self,
        open_socket: OpenSocket,
        active_attempts: ActiveAttempts,
        log: Log,
        on_benchmark: Callable[[int], None] = _nothing,
        on_replaced: Callable[[], None] = _nothing,
    ) -> None:
        self._open_socket = open_socket
        self._active_attempts = active_attempts
        self._log = log
        self._on_benchmark = on_benchmark
        self._on_replaced = on_replaced
        self._backoff = Backoff()
        self._outgoing: deque[str] = deque()
        self._wake = trio.Event()
        self._unacked: dict[int, _Unacked] = {}
        self._last_id = 0
        self._jobs: dict[tuple[str, int], Job] = {}
        self._changed = trio.Event()
        self._scope = trio.CancelScope()
        self.is_open = False

    # ------------------------------------------------------------------ what the engine asks for

    async def maybe_ask(self, kind: str, job_id: str | None, body: bytes) -> bytes | None:
        """Send a message and return the body of its ack; None if the socket is not open, or is
        lost before the ack. Raises `DaemonUnavailable` and `Rejected` as `DaemonApi` does."""
        if not self.is_open:
            return None
        self._last_id += 1
        number = self._last_id
        sent = self._unacked[number] = _Unacked()
        self._queue(number, kind, job_id, body)
        try:
            with trio.move_on_after(ACK_S) as patience:
                await sent.finished.wait()
        finally:
            self._unacked.pop(number, None)
        if patience.cancelled_caught:
            self._log.warning("websocket closed: no ack in time", kind=kind)
            self._scope.cancel()
        if sent.ack is None:
            return None
        problem = sent.ack.problem
        if problem is not None:
            raise fault_of(problem.status, problem.detail, problem.type)
        return bytes(sent.ack.body) if isinstance(sent.ack.body, msgspec.Raw) else b""

    async def next_job(self, poll: Callable[[], Awaitable[Job | None]]) -> Job | None:
        """Return a pushed job, waiting for one while the socket is open; without a socket, what
        `poll` returns or raises. A poll is cancelled if a job is pushed meanwhile."""
        if not self._jobs and self.is_open:
            self._changed = trio.Event()
            await self._changed.wait()
        elif not self._jobs:
            job = await self._polled(poll)
            if job is not None:
                return job
        return self._jobs.pop(next(iter(self._jobs))) if self._jobs else None

    def take_waiting(self) -> list[Job]:
        """Return the jobs that were pushed and not started, and forget them."""
        waiting, self._jobs = list(self._jobs.values()), {}
        return waiting

    # ------------------------------------------------------------------------------- the socket

    async def run(self) -> None:
        """Keep a socket open until another engine of the same id has one."""
        while True:
            pause_s = await self._once()
            if pause_s is None:
                break
            await trio.sleep(pause_s)
        self._on_replaced()

    async def _once(self) -> float | None:
        """Use one socket until it closes; return how long to wait before the next, if at all."""
        try:
            async with self._open_socket() as socket:
                self._log.info("websocket open: work is pushed")
                end = await self._serve(socket)
        except NotSupported as error:
            self._log.info("the daemon has no websocket: polling for work", reason=error)
            return RETRY_UPGRADE_S
        except Closed as error:
            end = error
        if end.code == CLOSE_REPLACED:
            return None
        pause_s = self._backoff.next_s()
        self._log.info("websocket closed: polling for work", reason=end)
        return pause_s

    async def _serve(self, socket: EngineSocket) -> Closed:
        """Use an open socket until it closes; return why it did."""
        end = Closed("no answer in time")
        self.is_open = True
        self._changed.set()
        try:
            with trio.CancelScope() as self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send_loop, socket)
                    nursery.start_soon(self._keep_alive, socket)
                    end = await self._receive_loop(socket)
                    nursery.cancel_scope.cancel()
        finally:
            self.is_open = False
            self._outgoing.clear()
            for sent in self._unacked.values():
                sent.finished.set()
            self._changed.set()
        return end

    async def _receive_loop(self, socket: EngineSocket) -> Closed:
        while True:
            try:
                text = await socket.receive()
            except Closed as end:
                return end
            try:
                self._handle(_decoder.decode(text))
            except (msgspec.DecodeError, RecursionError) as error:
                # From a newer daemon, perhaps; what matters comes by HTTP as well.
                self._log.warning("message from the daemon cannot be decoded", reason=error)

    def _handle(self, message: ToEngine) -> None:
        self._backoff.reset()
        if isinstance(message, AckMessage):
            sent = self._unacked.get(message.id)
            if sent is not None:
                sent.ack = message
                sent.finished.set()
        elif isinstance(message, AssignedMessage):
            job = msgspec.json.decode(message.job, type=Job)
            self._jobs[job.job_id, job.attempt] = job
            self._changed.set()
        elif isinstance(message, CancelMessage):
            self._jobs.pop((message.job_id, message.attempt), None)
            self._active_attempts.apply([Verdict(message.job_id, message.attempt, "cancel")])
        elif isinstance(message, PauseMessage):
            self._pause(message)
        elif isinstance(message, BenchmarkMessage):
            self._on_benchmark(message.requested_at)
        else:
            self._log.info("daemon changed the drain state", draining=message.draining)

    def _pause(self, message: PauseMessage) -> None:
        attempt = (message.job_id, message.attempt)
        if attempt in self._jobs:  # not started: it will start paused
            self._jobs[attempt] = msgspec.structs.replace(
                self._jobs[attempt], paused=message.paused
            )
        verdict = Verdict(message.job_id, message.attempt, "keep", message.paused)
        self._active_attempts.apply([verdict])

    async def _send_loop(self, socket: EngineSocket) -> None:
        """Send from this task only, so that no cancelled caller leaves half a frame."""
        while True:
            while self._outgoing:
                try:
                    await socket.send(self._outgoing.popleft())
                except Closed:
                    return  # the receiver notices it, too
            self._wake = trio.Event()
            await self._wake.wait()

    async def _keep_alive(self, socket: EngineSocket) -> None:
        while True:
            await trio.sleep(PING_S)
            with trio.move_on_after(PONG_S) as patience:
                try:
                    await socket.ping()
                except Closed:
                    return
            if patience.cancelled_caught:
                self._log.warning("websocket closed: no answer to a ping")
                self._scope.cancel()

    # ---------------------------------------------------------------------------------- helpers

    def _queue(self, number: int, kind: str, job_id: str | None, body: bytes) -> None:
        message = {"type": kind, "id": number, "body": msgspec.Raw(body)}
        if job_id is not None:
            message["job_id"] = job_id
        self._outgoing.append(msgspec.json.encode(message).decode())
        self._wake.set()

    async def _polled(self, poll: Callable[[], Awaitable[Job | None]]) -> Job | None:
        job: Job | None = None
        failure: DaemonUnavailable | Rejected | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._until_pushed, nursery.cancel_scope)
            try:
                job = await poll()
            except (DaemonUnavailable, Rejected) as error:
                failure = error  # raised below: the nursery would wrap it in a group
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return job

    async def _until_pushed(self, scope: trio.CancelScope) -> None:
        while not self._jobs:
            self._changed = trio.Event()
            await self._changed.wait()
        scope.cancel()
