"""Telling: events go to whoever waits for them, only after the commit that made them true.

Listeners are isolated: one that raises is logged and counted under its name, and the others hear
the event all the same. Nobody is waited for.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio

from distconvd.dispatch import Event

log = logging.getLogger("distconvd.teller")

Listener = Callable[[Event], None]


class NumberedEvent(NamedTuple):
    """An event with its place in this daemon's history."""

    number: int
    event: Event


class Teller:
    """Fans events out to listeners and to tasks that wait for one thing.

    Args:
        buffer_events_max: how many past events a late reader may still get.
    """

    def __init__(self, buffer_events_max: int = 1000) -> None:
        self.recent: deque[NumberedEvent] = deque(maxlen=buffer_events_max)
        self.failures: Counter[str] = Counter()
        self._listeners: list[tuple[str, Listener]] = []
        self._waiting: dict[tuple[str, str], trio.Event] = {}
        self._any = trio.Event()
        self._number = 0

    def add_listener(self, name: str, listener: Listener) -> None:
        """Have `listener` called with every event; `name` is for logs and metrics."""
        self._listeners.append((name, listener))

    def tell(self, events: Sequence[Event]) -> None:
        """Tell of events that are durable."""
        for event in events:
            self._number += 1
            self.recent.append(NumberedEvent(self._number, event))
            for name, listener in self._listeners:
                try:
                    listener(event)
                except Exception:
                    self.failures[name] += 1
                    log.exception("listener %s failed for %s", name, event.kind)
            self._wake(event)
        if events:
            self._any.set()
            self._any = trio.Event()

    async def wait_for_job(self, job_id: str) -> None:
        """Return at the next event of that job."""
        await self._wait("job", job_id)

    async def wait_for_assignment(self, engine_id: str) -> None:
        """Return when a job is assigned to that engine."""
        await self._wait("assigned", engine_id)

    async def wait_for_any(self) -> None:
        """Return at the next event."""
        await self._any.wait()

    async def _wait(self, kind: str, key: str) -> None:
        event = self._waiting.setdefault((kind, key), trio.Event())
        try:
            await event.wait()
        finally:
            if not event.statistics().tasks_waiting and self._waiting.get((kind, key)) is event:
                del self._waiting[kind, key]

    def _wake(self, event: Event) -> None:
        keys = [("job", event.job_id)]
        if event.kind == "job.assigned":
            keys.append(("assigned", event.engine_id))
        for kind, key in keys:
            if key is not None:
                waiting = self._waiting.pop((kind, key), None)
                if waiting is not None:
                    waiting.set()
