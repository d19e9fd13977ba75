"""Stream events to clients as server-sent events (`GET /events`; WHATWG HTML, section 9.2).

Each event has a number as its `id`. A reader that reconnects with `Last-Event-ID` gets what it missed
from the event bus's bounded buffer; if that does not reach back far enough, one event `gap` comes
first, and the reader should list the jobs again. Numbers keep growing when the daemon restarts.

Nothing waits for a reader: one so slow that the buffer no longer contains its next event is
disconnected, and may reconnect with `Last-Event-ID`. The stream ends when the daemon drains, and when
its key has been revoked or has expired.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import get_args

import msgspec
import trio

from distconvd.api.caller import shown_job
from distconvd.api.openapi.operations import EVENTS
from distconvd.core.event_bus import EventBus, NumberedEvent
from distconvd.dispatch import Event
from distconvd.dispatch.decision import EventKind
from distconvd.edge.http import RECHECK_S, Principal, Request, Response, Route, is_still_authorized
from distconvd.edge.long_poll import wait_while_wanted
from distconvd.errors import BadRequest
from distconvd.model import mask_urls

HEARTBEAT_S = 15.0
"""A comment is sent after so long without an event, to show that the connection is alive."""
PIECE_EVENTS = 64
"""Events sent in one piece."""
KINDS = frozenset(get_args(EventKind))


class EventsApi:
    """The handler of `/events`."""

    def __init__(self, event_bus: EventBus) -> None:
        self._event_bus = event_bus

    def routes(self) -> list[Route]:
        """Return the rows of the route table."""
        return [Route("GET", "/events", self.events, "read", summary="Follow events", doc=EVENTS)]

    async def events(self, request: Request) -> Response:
        """`GET /events`, filtered by `?job=ID` and `?kind=KIND,KIND`."""
        kinds = _kinds_of(request.query.get("kind"))
        job_id = request.query.get("job")
        since = _number_of(request.headers.get("last-event-id"))
        body = self._follow(request, since, kinds, job_id)
        return Response(200, body, "text/event-stream", {"Cache-Control": "no-store"})

    async def _follow(
        self, request: Request, since: int | None, kinds: frozenset[str], job_id: str | None
    ) -> AsyncIterator[bytes]:
        """Yield events as they are published, until the reader leaves or lags, or a drain starts."""
        last = self._event_bus.number if since is None else since
        yield b": distconvd events\n\n"  # so that the head is sent immediately
        if not self._reaches_back_to(last):
            yield _gap(last)
            last = self._first() - 1
        checked_at_s = trio.current_time()
        while not (request.link is not None and request.link.over):
            if trio.current_time() - checked_at_s >= RECHECK_S:
                checked_at_s = trio.current_time()
                if not is_still_authorized(request):
                    yield b": the key is no longer accepted\n\n"
                    return
            if not self._reaches_back_to(last):
                yield b": too slow; reconnect with Last-Event-ID\n\n"
                return
            fresh = self._after(last)
            for at in range(0, len(fresh), PIECE_EVENTS):
                piece = fresh[at : at + PIECE_EVENTS]
                yield b"".join(_event_json(piece, request.principal, kinds, job_id))
            last = fresh[-1].number if fresh else last
            if last == self._event_bus.number:
                waited = await wait_while_wanted(request, self._wait, HEARTBEAT_S)
                if waited is None:
                    yield b": still here\n\n"

    async def _wait(self) -> bool:
        await self._event_bus.wait_for_any()
        return True

    def _first(self) -> int:
        """Return the number of the oldest buffered event (of the next one, if none is buffered)."""
        recent = self._event_bus.recent
        return recent[0].number if recent else self._event_bus.number + 1

    def _reaches_back_to(self, last: int) -> bool:
        """Whether every event after number `last` is still in the buffer; False for a number that
        the daemon has never assigned."""
        return self._first() - 1 <= last <= self._event_bus.number

    def _after(self, last: int) -> Sequence[NumberedEvent]:
        """Return the events after number `last`; the cost depends only on how many these are."""
        fresh: list[NumberedEvent] = []
        for numbered in reversed(self._event_bus.recent):
            if numbered.number <= last:
                break
            fresh.append(numbered)
        return fresh[::-1]


def _event_json(
    events: Iterable[NumberedEvent],
    principal: Principal | None,
    kinds: frozenset[str],
    job_id: str | None,
) -> Iterable[bytes]:
    """Yield the events that match the reader's filter, as on the wire."""
    for number, event in events:
        if event.kind in kinds and job_id in (None, event.job_id):
            yield b"id: %d\nevent: %b\ndata: %b\n\n" % (
                number,
                event.kind.encode(),
                _data(event, principal),
            )


def _data(event: Event, principal: Principal | None) -> bytes:
    """Return an event as one line of JSON, with the record as it was when it was published."""
    record = None if event.record is None else msgspec.Raw(_shown_record(event, principal))
    reason = None if event.reason is None else mask_urls(event.reason)
    return msgspec.json.encode(event._asdict() | {"record": record, "reason": reason})


def _shown_record(event: Event, principal: Principal | None) -> bytes:
    """Return the record as this reader may see it; only jobs have secrets."""
    record = event.record or b"null"
    return shown_job(principal, record) if event.kind.startswith("job.") else record


def _gap(last: int) -> bytes:
    data = msgspec.json.encode({"kind": "gap", "after": last})
    return b"event: gap\ndata: %b\n\n" % data


def _kinds_of(text: str | None) -> frozenset[str]:
    """Return the kinds that a query asks for; raises `BadRequest`."""
    if text is None:
        return KINDS
    kinds = frozenset(text.split(","))
    if not kinds <= KINDS:
        raise BadRequest(
            f"'kind' must be one or several of {', '.join(sorted(KINDS))}.", field="kind"
        )
    return kinds


def _number_of(text: str | None) -> int | None:
    """Return the number in a `Last-Event-ID`; raises `BadRequest`."""
    if text is None or not text.strip():
        return None
    if not text.isdecimal() or len(text) > 18:
        raise BadRequest("'Last-Event-ID' must be the id of an event.", field="Last-Event-ID")
    return int(text)
