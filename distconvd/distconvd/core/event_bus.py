"""Publish events to listeners and waiting tasks, only after the commit that made them true.

Listeners are isolated: one that raises is logged and counted under its name, and the others still
receive the event. The bus waits for nobody.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import trio

from distconvd.core.event_log import ids_of
from distconvd.dispatch import Event

log = logging.getLogger("distconvd.event_bus")

Listener = Callable[[Event], None]


class NumberedEvent(NamedTuple):
    """An event with its number in this daemon's history."""

    number: int
    event: Event


class _Waiting:
    """Tasks that wait for the same job or engine."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.count = 0


class EventBus:
    """Fans events out to listeners, and to tasks that wait for one job or one engine.

    Args:
        buffer_events_max: how many past events a late reader may still get.
        first_number: the number before that of the first event.
    """

    def __init__(self, buffer_events_max: int = 1000, *, first_number: int = 0) -> None:
        self.recent: deque[NumberedEvent] = deque(maxlen=buffer_events_max)
        self.failures: Counter[str] = Counter()
        self._listeners: list[tuple[str, Listener]] = []
        self._waiting: dict[tuple[str, str], _Waiting] = {}
        self._any = trio.Event()
        self.number = first_number
        """The number of the last event."""

    def add_listener(self, name: str, listener: Listener) -> None:
        """Have `listener` called with every event; `name` is for logs and metrics."""
        self._listeners.append((name, listener))

    def publish(self, events: Sequence[Event]) -> None:
        """Pass durable events to all listeners, and wake the tasks that wait for them."""
        for event in events:
            self.number += 1
            self.recent.append(NumberedEvent(self.number, event))
            for name, listener in self._listeners:
                try:
                    listener(event)
                except (Exception, SystemExit):
                    self.failures[name] += 1
                    log.exception(
                        "listener %s failed for %s", name, event.kind, extra=ids_of(event)
                    )
            self._wake(event)
        if events:
            self._any.set()
            self._any = trio.Event()

    @contextmanager
    def expect(self, what: Literal["job", "assigned"], key: str) -> Generator[trio.Event]:
        """Yield a `trio.Event` that is set at the next event of a job, or assignment to an engine.

        It counts from the moment of the call: look at the state after entering, then wait.
        """
        waiting = self._waiting.setdefault((what, key), _Waiting())
        waiting.count += 1
        try:
            yield waiting.event
        finally:
            waiting.count -= 1
            if not waiting.count and self._waiting.get((what, key)) is waiting:
                del self._waiting[what, key]

    async def wait_for_any(self) -> None:
        """Return at the next event."""
        await self._any.wait()

    def _wake(self, event: Event) -> None:
        keys = [("job", event.job_id)]
        if event.kind == "job.assigned":
            keys.append(("assigned", event.engine_id))
        for kind, key in keys:
            if key is not None:
                waiting = self._waiting.pop((kind, key), None)
                if waiting is not None:
                    waiting.event.set()
