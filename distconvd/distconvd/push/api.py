"""Open websockets, keep one session per engine, and pass events to the sessions.

An id belongs to the engine that connected first, for as long as it is alive: another connection under
the same id is closed with 4001, and its engine leaves. Otherwise whoever has a key for engines could
push any engine out. The first one is asked (a ping) before that, because an engine that lost its network
connects again before the end of its old connection is noticed; without an answer the newcomer takes
over. A key that is for this engine alone takes over from one that is for any.
"""

import logging
from collections.abc import Callable
from functools import partial

import trio

from distconvd.api.openapi.operations import WEBSOCKET
from distconvd.api.validate import check_id
from distconvd.auth import require_engine
from distconvd.core.ledger import Ledger
from distconvd.dispatch import Event
from distconvd.dispatch.records import decode_engine
from distconvd.edge.http import Request, Route, Upgrade, is_still_authorized
from distconvd.errors import Unavailable
from distconvd.model.push import CLOSE_REPLACED, CLOSE_RESTART
from distconvd.push.handshake import check_handshake
from distconvd.push.inbox import Inbox
from distconvd.push.limits import PushLimits
from distconvd.push.session import Session
from distconvd.push.socket import Socket, serve_socket

log = logging.getLogger("distconvd.push")

PATTERN = "/engines/{engine_id}/ws"
STOPPING = "the daemon is stopping"


class PushApi:
    """The websockets of a daemon. `on_event` must be called with every event."""

    def __init__(self, ledger: Ledger, limits: PushLimits | None = None) -> None:
        self._ledger = ledger
        self._limits = limits or PushLimits()
        self._is_draining = False
        self.sessions: dict[str, Session] = {}
        """The open session of each connected engine."""

    def routes(self) -> list[Route]:
        """Return the rows of the route table."""
        return [
            Route(
                "GET",
                PATTERN,
                self.open,
                "engine",
                summary="Receive work by websocket",
                doc=WEBSOCKET,
            )
        ]

    async def open(self, request: Request) -> Upgrade:
        """`GET /engines/{id}/ws`; an invalid handshake gets an ordinary HTTP error."""
        engine_id = request.params["engine_id"]
        request.log["engine_id"] = engine_id
        check_id(engine_id, "engine_id")
        require_engine(request.principal, engine_id)
        check_handshake(request)
        if self._is_draining:
            raise Unavailable(f"No new websocket: {STOPPING}.")
        has_own_key = request.principal is not None and request.principal.engine is not None
        inbox = Inbox(self._ledger, engine_id, has_own_key=has_own_key)
        return Upgrade(partial(self._serve, inbox, partial(is_still_authorized, request)))

    def on_event(self, event: Event) -> None:
        """Pass an event on to the engine that it is about."""
        session = self.sessions.get(event.engine_id or "")
        if session is None:
            return
        if event.kind in ("job.assigned", "engine.registered"):
            session.check_for_work()
        elif event.kind == "job.cancelled" and event.job_id and event.attempt:
            session.cancel(event.job_id, event.attempt)
        elif event.kind == "job.updated" and event.reason and event.job_id and event.attempt:
            session.pause(event.job_id, event.attempt, paused=event.reason == "paused")
        elif event.kind == "engine.changed" and event.record is not None:
            engine = decode_engine(event.record)
            session.send_draining(draining=engine.draining)
            session.ask_for_benchmark(engine.benchmark_requested_at)

    def drain(self) -> None:
        """Close all websockets with 1012, and open no more."""
        self._is_draining = True
        for session in list(self.sessions.values()):
            session.close(CLOSE_RESTART, STOPPING)

    async def _is_taken(self, newcomer: Session) -> bool:
        """Whether a live engine has this id, which the newcomer may not take from it."""
        asked: Session | None = None
        while (holder := self.sessions.get(newcomer.engine_id)) is not asked:
            if holder is None or (newcomer.has_own_key and not holder.has_own_key):
                return False
            if await holder.is_alive():
                return True
            asked = holder  # unless yet another one has taken over meanwhile
        return False

    async def _serve(
        self, inbox: Inbox, is_authorized: Callable[[], bool], stream: trio.abc.Stream
    ) -> None:
        run_session = partial(self._run_session, inbox, is_authorized)
        await serve_socket(stream, self._limits, run_session)

    async def _run_session(
        self, inbox: Inbox, is_authorized: Callable[[], bool], socket: Socket
    ) -> None:
        engine_id = inbox.engine_id
        session = Session(inbox, socket, self._ledger, self._limits, is_authorized)
        if await self._is_taken(session):
            log.warning(
                "another engine wanted to connect under this id and was refused: give each its own"
                " engine_id",
                extra={"engine_id": engine_id},
            )
            await socket.close(CLOSE_REPLACED, f"another engine is connected as {engine_id}"[:120])
            return
        older = self.sessions.get(engine_id)
        self.sessions[engine_id] = session
        if older is not None:
            log.warning(
                "the engine has connected again; its older connection is closed",
                extra={"engine_id": engine_id},
            )
            older.close(CLOSE_REPLACED, "another connection of this engine has replaced this one")
        if self._is_draining:
            session.close(CLOSE_RESTART, STOPPING)
        try:
            await session.run()
        finally:
            if self.sessions.get(engine_id) is session:
                del self.sessions[engine_id]
