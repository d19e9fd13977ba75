"""Metrics for Prometheus, prefix `distconv_`; the state is counted when it is asked for."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from distconvd.dispatch import Dispatcher
from distconvd.edge.access import Exchange
from distconvd.model import EngineState, JobStatus
from distconvd.teller import Teller

_COMMIT_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """All metrics of one daemon."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(
        self,
        dispatcher: Dispatcher,
        teller: Teller,
        slow_hooks: Mapping[tuple[str, str], int] | None = None,
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(
            _StateCollector(dispatcher, teller, {} if slow_hooks is None else slow_hooks)
        )
        self._requests = Counter(
            "distconv_http_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._latency = Histogram(
            "distconv_http_request_seconds",
            "Time from a request's head to the end of its reply.",
            ("route",),
            buckets=_REQUEST_BUCKETS_S,
            registry=self._registry,
        )
        self._commit_seconds = Histogram(
            "distconv_commit_seconds",
            "Time of a durable commit.",
            buckets=_COMMIT_BUCKETS_S,
            registry=self._registry,
        )
        self._commit_changes = Histogram(
            "distconv_commit_changes",
            "Records changed by one commit.",
            buckets=_BATCH_BUCKETS,
            registry=self._registry,
        )
        self._wrong_keys = Counter(
            "distconv_wrong_keys", "Requests with a key that is not known.", registry=self._registry
        )
        self._websockets = Gauge(
            "distconv_websocket_sessions",
            "Engines connected by websocket.",
            registry=self._registry,
        )

    def render(self) -> bytes:
        """Return everything in the text format."""
        return generate_latest(self._registry)

    def count_websockets(self, count: Callable[[], int]) -> None:
        """Show what `count` returns as the number of open websockets."""
        self._websockets.set_function(count)

    def observe_request(self, exchange: Exchange) -> None:
        """Count one request; the route's pattern and not the path, and no method that a client
        made up, so that labels are bounded."""
        route = exchange.route.pattern if exchange.route else "none"
        method = exchange.method if exchange.method in _METHODS else "other"
        self._requests.labels(method, route, str(exchange.status)).inc()
        self._latency.labels(route).observe(exchange.duration_s)

    def observe_wrong_key(self) -> None:
        """Count one request with a wrong key."""
        self._wrong_keys.inc()

    def observe_commit(self, changes: int, duration_s: float) -> None:
        """Count one commit."""
        self._commit_seconds.observe(duration_s)
        self._commit_changes.observe(changes)


class _StateCollector(Collector):
    """Gauges computed from the dispatcher's state at each scrape."""

    def __init__(
        self, dispatcher: Dispatcher, teller: Teller, slow_hooks: Mapping[tuple[str, str], int]
    ) -> None:
        self._dispatcher = dispatcher
        self._teller = teller
        self._slow_hooks = slow_hooks

    def collect(self) -> Iterator[Metric]:
        """Yield the present numbers."""
        state = self._dispatcher.state
        jobs = GaugeMetricFamily("distconv_jobs", "Stored jobs by status.", labels=["status"])
        for status in JobStatus:
            jobs.add_metric([status.value], state.statuses[status])
        yield jobs
        yield GaugeMetricFamily("distconv_queue_jobs", "Jobs in line.", len(state.queue))
        yield GaugeMetricFamily(
            "distconv_queue_delayed_jobs", "Pending jobs that wait for a time.", len(state.delayed)
        )
        counts = dict.fromkeys(EngineState, 0)
        slots = held = 0
        for entry in state.pool.engines.values():
            counts[entry.state] += 1
            slots += entry.record.slots
            held += len(entry.held)
        engines = GaugeMetricFamily("distconv_engines", "Engines by state.", labels=["state"])
        for engine_state, count in counts.items():
            engines.add_metric([engine_state.value], count)
        yield engines
        yield GaugeMetricFamily("distconv_engine_slots", "Slots of all engines.", slots)
        yield GaugeMetricFamily("distconv_engine_slots_held", "Slots with a job.", held)
        yield CounterMetricFamily(
            "distconv_leases_expired", "Attempts lost.", self._dispatcher.leases_expired
        )
        yield CounterMetricFamily(
            "distconv_policy_failures",
            "Decisions that the policy failed and the default one made.",
            self._dispatcher.policy_failures,
        )
        failures = CounterMetricFamily(
            "distconv_listener_failures", "Events that a listener failed on.", labels=["listener"]
        )
        for name, count in self._teller.failures.items():
            failures.add_metric([name], count)
        yield failures
        slow = CounterMetricFamily(
            "distconv_slow_hooks",
            "Calls into a plugin that took longer than hook_slow_ms.",
            labels=["plugin", "hook"],
        )
        for (plugin, hook), count in self._slow_hooks.items():
            slow.add_metric([plugin, hook], count)
        yield slow
