"""Test an event listener: inherit from `ListenerSuite` and provide a fixture for yours.

    from distconvd.testing.listener_suite import ListenerSuite

    class TestMyListener(ListenerSuite):
        @pytest.fixture
        def listener(self, tmp_path: Path) -> object:
            return MyListener(...)

`listener` is an object with `on_event(event)`, and with `run(task_status)` if it is a service; for a
plain `distconvd_event` use `FunctionListener(distconvd_event)`.
"""

# ruff: noqa: D102 (a test's name is its sentence)

import time
import tracemalloc
from collections.abc import Callable
from typing import Any, Protocol, get_args

import pytest
import trio

from distconvd.dispatch import Event
from distconvd.dispatch.decision import EventKind

BURST = 5000
EVENT_MS_MAX = 1.0
"""The most time of an event on average: every request waits for it."""

KEPT_EVENTS_MAX = 10_000
"""Events that a listener may keep while nothing takes them from it."""
END_S_MAX = 30.0
"""The most time for a service to start, and to end."""

_JOB = b'{"job_id":"1_0","source_url":"file:///a.mov","target_codec":"h264","status":"completed"}'
_ENGINE = b'{"engine_id":"e1","status":"idle"}'


class Listener(Protocol):
    """The object under test; it may have `run`, as `hookspecs.Service`."""

    def on_event(self, event: Event) -> None:
        """Receive an event."""
        ...


class FunctionListener:
    """A listener that is a function, such as an implementation of `distconvd_event`."""

    def __init__(self, function: Callable[[Event], None]) -> None:
        self.on_event = function


def odd_events() -> list[Event]:
    """Return two events of each kind: one with all fields, one with as few as possible."""
    found: list[Event] = []
    for kind in get_args(EventKind):
        record = _JOB if kind.startswith("job.") else _ENGINE
        reason = 'a reason with "quotes", ünïcödé 🎬,\na line and \0'
        found.append(Event(kind, 1_700_000_000_000, "1_0", "e1", 1, record, reason))
        found.append(Event(kind, 0))
    return found


class ListenerSuite:
    """The tests; give the fixture `listener`."""

    @pytest.fixture
    def listener(self) -> Listener:
        raise NotImplementedError("override the fixture `listener`")

    def test_it_accepts_every_kind_of_event_and_returns_nothing(self, listener: Listener) -> None:
        for event in odd_events():
            assert listener.on_event(event) is None  # type: ignore[func-returns-value]

    def test_it_returns_immediately_even_in_a_burst(self, listener: Listener) -> None:
        event = odd_events()[0]
        began_s = time.perf_counter()
        for _ in range(BURST):
            listener.on_event(event)
        assert (time.perf_counter() - began_s) * 1000 / BURST < EVENT_MS_MAX

    def test_a_service_starts_and_stops_on_request_even_with_events_waiting(
        self, listener: Listener
    ) -> None:
        run: Any = getattr(listener, "run", None)
        if run is None:
            pytest.skip("it is no service")

        trio.run(_run_once, listener, run)

    def test_a_service_can_be_run_again(self, listener: Listener) -> None:
        run: Any = getattr(listener, "run", None)
        if run is None:
            pytest.skip("it is no service")

        async def main() -> None:
            await _run_once(listener, run)
            await _run_once(listener, run)

        trio.run(main)

    def test_the_events_that_it_keeps_are_bounded(self, listener: Listener) -> None:
        def grown_bytes() -> int:
            before_bytes, _ = tracemalloc.get_traced_memory()
            for number in range(KEPT_EVENTS_MAX):
                record = _JOB.replace(b"1_0", b"%d_0" % number)
                listener.on_event(Event("job.completed", 0, f"{number}_0", "e1", 1, record))
            return tracemalloc.get_traced_memory()[0] - before_bytes

        tracemalloc.start()
        try:
            grown_bytes()
            assert grown_bytes() < KEPT_EVENTS_MAX * 100, "it keeps every event, without a bound"
        finally:
            tracemalloc.stop()


async def _run_once(listener: Listener, run: Any) -> None:
    with trio.fail_after(END_S_MAX):
        async with trio.open_nursery() as nursery:
            listener.on_event(odd_events()[0])
            await nursery.start(run)
            for event in odd_events():
                listener.on_event(event)
            started_s = time.perf_counter()
            nursery.cancel_scope.cancel()
    # Not left to the timeout above: a service can shield itself from that, too.
    assert time.perf_counter() - started_s < END_S_MAX, "it does not end when it is cancelled"
