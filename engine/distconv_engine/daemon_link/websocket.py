"""The websocket to the daemon: work, cancels, pauses and drains come over it at once.

What goes over which: while it is open, heartbeats, progress and the outbox's reports go over it
and are acked there; assignments, cancels and pauses come over it, and no long poll is made. While it is
not, all of that goes by HTTP, and the engine asks for work. A message whose ack is not seen is
said again by HTTP: the daemon takes either, and takes it once. So losing the socket changes
nothing for what is being encoded, and nothing here is ever stored.

Lost, it is tried again with backoff; where the daemon has none, seldom. Replaced by another engine of
the same id, never: two of them would replace each other for ever, and do each job twice.
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
"""An ack that takes longer is not waited for: the socket is given up, and HTTP is asked."""
PING_S = 15.0
PONG_S = 10.0
RETRY_UPGRADE_S = 300.0
"""How long after a daemon said that it has no websocket it is asked again."""

OpenSocket = Callable[[], AbstractAsyncContextManager[EngineSocket]]
_decoder: msgspec.json.Decoder[ToEngine] = msgspec.json.Decoder(ToEngine)


def _nothing(*_: object) -> None:
    """Take no notice."""


class _Asked:
    """A message that waits for its ack."""

    def __init__(self) -> None:
        self.finished = trio.Event()
        self.ack: AckMessage | None = None


class PushLink:
    """The socket, when there is one; `run` keeps it.

    Args:
        open_socket: opens one.
        holdings: the attempts that cancels are for.
        log: for what a person should know.
        on_benchmark: is told when the daemon wants a new benchmark.
        on_replaced: is told once another engine has connected with the same id.
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
        self._asked: dict[int, _Asked] = {}
        self._last_id = 0
        self._jobs: dict[tuple[str, int], Job] = {}
        self._changed = trio.Event()
        self._scope = trio.CancelScope()
        self.is_open = False

    # ------------------------------------------------------------------ what the engine asks for

    async def maybe_ask(self, kind: str, job_id: str | None, body: bytes) -> bytes | None:
        """Say something and return the body of its ack; None where the socket is not there, or is
        lost before the ack. Raises `DaemonUnavailable` and `Rejected` as `DaemonApi` does."""
        if not self.is_open:
            return None
        self._last_id += 1
        number = self._last_id
        asked = self._asked[number] = _Asked()
        self._queue(number, kind, job_id, body)
        try:
            with trio.move_on_after(ACK_S) as patience:
                await asked.finished.wait()
        finally:
            self._asked.pop(number, None)
        if patience.cancelled_caught:
            self._log.warning("websocket given up: no ack in time", kind=kind)
            self._scope.cancel()
        if asked.ack is None:
            return None
        problem = asked.ack.problem
        if problem is not None:
            raise fault_of(problem.status, problem.detail)
        return bytes(asked.ack.body) if isinstance(asked.ack.body, msgspec.Raw) else b""

    async def next_job(self, poll: Callable[[], Awaitable[Job | None]]) -> Job | None:
        """Return a job that was pushed, waiting for one while the socket is open; without it, what
        `poll` returns or raises. A poll is given up for a job that is pushed meanwhile."""
        if not self._jobs and self.is_open:
            self._changed = trio.Event()
            await self._changed.wait()
        elif not self._jobs:
            job = await self._polled(poll)
            if job is not None:
                return job
        return self._jobs.pop(next(iter(self._jobs))) if self._jobs else None

    def take_waiting(self) -> list[Job]:
        """Return the jobs that were pushed and not begun, and forget them."""
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
        """Use one socket until it is over; return how long to wait before the next, if at all."""
        try:
            async with self._open_socket() as socket:
                self._log.info("websocket open: work is pushed")
                end = await self._serve(socket)
        except NotSupported as error:
            self._log.info("no websocket here: work is asked for", reason=error)
            return RETRY_UPGRADE_S
        except Closed as error:
            end = error
        if end.code == CLOSE_REPLACED:
            return None
        pause_s = self._backoff.next_s()
        self._log.info("no websocket for now: work is asked for", reason=end)
        return pause_s

    async def _serve(self, socket: EngineSocket) -> Closed:
        """Use an open socket until it is over; return why it is."""
        end = Closed("given up")
        self.is_open = True
        self._changed.set()
        try:
            with trio.CancelScope() as self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send_forever, socket)
                    nursery.start_soon(self._keep_alive, socket)
                    end = await self._receive_forever(socket)
                    nursery.cancel_scope.cancel()
        finally:
            self.is_open = False
            self._outgoing.clear()
            for asked in self._asked.values():
                asked.finished.set()
            self._changed.set()
        return end

    async def _receive_forever(self, socket: EngineSocket) -> Closed:
        while True:
            try:
                text = await socket.receive()
            except Closed as end:
                return end
            try:
                self._handle(_decoder.decode(text))
            except (msgspec.DecodeError, RecursionError) as error:
                # Of a newer daemon, perhaps; what matters can be learnt by HTTP as well.
                self._log.warning("message of the daemon not understood", reason=error)

    def _handle(self, message: ToEngine) -> None:
        self._backoff.reset()
        if isinstance(message, AckMessage):
            asked = self._asked.get(message.id)
            if asked is not None:
                asked.ack = message
                asked.finished.set()
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
            self._log.info("told by the daemon", draining=message.draining)

    def _pause(self, message: PauseMessage) -> None:
        attempt = (message.job_id, message.attempt)
        if attempt in self._jobs:  # not begun: it will begin paused
            self._jobs[attempt] = msgspec.structs.replace(
                self._jobs[attempt], paused=message.paused
            )
        verdict = Verdict(message.job_id, message.attempt, "keep", message.paused)
        self._active_attempts.apply([verdict])

    async def _send_forever(self, socket: EngineSocket) -> None:
        """The only sender, so that nobody who is cancelled leaves half a frame."""
        while True:
            while self._outgoing:
                try:
                    await socket.send(self._outgoing.popleft())
                except Closed:
                    return  # the receiver hears of it, too
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
                self._log.warning("websocket given up: no answer to a ping")
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
                failure = error  # raised below: a nursery would wrap it
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return job

    async def _until_pushed(self, scope: trio.CancelScope) -> None:
        while not self._jobs:
            self._changed = trio.Event()
            await self._changed.wait()
        scope.cancel()
