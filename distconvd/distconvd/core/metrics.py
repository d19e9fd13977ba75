"""Collect metrics for Prometheus (prefix `distconv_`); the state is counted at each scrape.

A scrape looks at every engine and its assigned jobs, never at every job.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from distconvd.core.event_bus import EventBus
from distconvd.dispatch import Dispatcher
from distconvd.dispatch.matching import EngineEntry
from distconvd.edge.access import Exchange
from distconvd.model import EngineState, JobStatus
from distconvd.plugin_host.metrics import Collect, PluginMetrics

_COMMIT_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_PRIORITIES = (0, 1, 2)
ENGINES_SHOWN_MAX = 500
"""Engines with a series of their own; all others share one more."""
OTHERS = "other engines"
"""The label of that series; no engine has it as its id, as an id contains no space."""


class Metrics:
    """All metrics of one daemon.

    Args:
        dispatcher: its state is shown.
        event_bus: counts the listeners that failed.
        slow_hooks: calls into a plugin that were slow, by plugin and hook.
        sources: the sets of metrics that plugins have registered, by name.
        service_failures: how often a service failed after its start, by name.
    """

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(
        self,
        dispatcher: Dispatcher,
        event_bus: EventBus,
        slow_hooks: Mapping[tuple[str, str], int] | None = None,
        sources: Sequence[tuple[str, Collect]] = (),
        service_failures: Mapping[str, int] | None = None,
    ) -> None:
        self._registry = CollectorRegistry()
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
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
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
            "distconv_wrong_keys", "Requests with an unknown API key.", registry=self._registry
        )
        self._websockets = Gauge(
            "distconv_websocket_sessions",
            "Engines connected by websocket.",
            registry=self._registry,
        )
        self._not_ready = Gauge(
            "distconv_not_ready", "1 while changes are refused, else 0.", registry=self._registry
        )
        self._store_damage = Gauge(
            "distconv_store_damage",
            "Damage of the store that nobody has acknowledged with `distconvd audit --repair`.",
            registry=self._registry,
        )
        slow: Mapping[tuple[str, str], int] = {} if slow_hooks is None else slow_hooks
        failed: Mapping[str, int] = {} if service_failures is None else service_failures
        plugins = _PluginCollector(event_bus, slow, failed)
        self._registry.register(_StateCollector(dispatcher))
        self._registry.register(plugins)
        taken = {family.name for family in self._registry.collect()}
        self._plugins = plugins.metrics = PluginMetrics(sources, taken)

    def render(self) -> bytes:
        """Return everything in the text format, the plugins' last."""
        # First, as it counts the plugins' failures, which the daemon's own metrics show.
        of_plugins = self._plugins.render()
        return generate_latest(self._registry) + of_plugins

    def count_websockets(self, count: Callable[[], int]) -> None:
        """Show what `count` returns as the number of open websockets."""
        self._websockets.set_function(count)

    def show_not_ready(self, refuses: Callable[[], bool]) -> None:
        """Show what `refuses` returns: whether `/readyz` fails."""
        self._not_ready.set_function(refuses)

    def show_store_damage(self, count: int) -> None:
        """Show how much damage of the store is not acknowledged."""
        self._store_damage.set(count)

    def observe_request(self, exchange: Exchange) -> None:
        """Count one request: by the route's pattern instead of its path, and with methods that a
        client invented as one, so that labels are bounded."""
        route = exchange.route.pattern if exchange.route else "none"
        method = exchange.method if exchange.method in _METHODS else "other"
        at = (method, route, exchange.status)
        found = self._series.get(at)
        if found is None:
            # Looking a series up by its labels costs more than counting in it.
            found = (
                self._requests.labels(method, route, str(exchange.status)),
                self._latency.labels(route),
            )
            self._series[at] = found
        found[0].inc()
        found[1].observe(exchange.duration_s)

    def observe_wrong_key(self) -> None:
        """Count one request with a wrong key."""
        self._wrong_keys.inc()

    def observe_commit(self, changes: int, duration_s: float) -> None:
        """Count one commit."""
        self._commit_seconds.observe(duration_s)
        self._commit_changes.observe(changes)


class _StateCollector(Collector):
    """Gauges computed from the dispatcher's state at each scrape."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def collect(self) -> Iterator[Metric]:
        """Yield the present numbers."""
        yield from self._jobs()
        yield from self._engines()
        yield CounterMetricFamily(
            "distconv_leases_expired",
            "Attempts lost.",
            self._dispatcher.state.runtime.leases_expired,
        )
        yield CounterMetricFamily(
            "distconv_policy_failures",
            "Decisions made by the default policy because the configured one failed.",
            self._dispatcher.policy.failures,
        )

    def _jobs(self) -> Iterator[Metric]:
        state = self._dispatcher.state
        jobs = GaugeMetricFamily("distconv_jobs", "Stored jobs by status.", labels=["status"])
        for status in JobStatus:
            jobs.add_metric([status.value], state.statuses[status])
        yield jobs
        yield GaugeMetricFamily("distconv_queue_jobs", "Jobs in the queue.", len(state.queue))
        yield GaugeMetricFamily(
            "distconv_queue_delayed_jobs",
            "Pending jobs that wait for a time.",
            len(state.delayed),
        )
        oldest_by_priority = GaugeMetricFamily(
            "distconv_queue_age_seconds",
            "Age of the oldest job in the queue, 0 if there is none.",
            labels=["priority"],
        )
        now_ms = state.runtime.now.wall_ms
        oldest = state.queue.oldest_pending.oldest()
        for priority in _PRIORITIES:
            age_ms = 0
            if priority in oldest:
                # A record from elsewhere may not say when its job was created.
                created_ms = state.job(oldest[priority]).created_at or now_ms
                age_ms = max(0, now_ms - created_ms)
            oldest_by_priority.add_metric([str(priority)], age_ms / 1000)
        yield oldest_by_priority

    def _engines(self) -> Iterator[Metric]:
        counts = dict.fromkeys(EngineState, 0)
        slots = assigned = 0
        speeds: dict[str, float] = {}
        for engine_id, entry in self._dispatcher.state.pool.engines.items():
            counts[entry.state] += 1
            slots += entry.record.slots
            assigned += len(entry.assigned)
            speed = self._speed_of(entry)
            if speed is not None:
                shown = engine_id if len(speeds) < ENGINES_SHOWN_MAX else OTHERS
                speeds[shown] = speeds.get(shown, 0.0) + speed
        engines = GaugeMetricFamily("distconv_engines", "Engines by state.", labels=["state"])
        for engine_state, count in counts.items():
            engines.add_metric([engine_state.value], count)
        yield engines
        yield GaugeMetricFamily("distconv_engine_slots", "Slots of all engines.", slots)
        yield GaugeMetricFamily("distconv_engine_slots_held", "Slots with a job.", assigned)
        total_speed = GaugeMetricFamily(
            "distconv_ffmpeg_speed",
            "Seconds of media that an engine's running encodes produce in one second, in total.",
            labels=["engine"],
        )
        for engine_id, speed in speeds.items():
            total_speed.add_metric([engine_id], speed)
        yield total_speed

    def _speed_of(self, entry: EngineEntry) -> float | None:
        """Return the total speed of its encodes as last reported; None if it reported none."""
        progress = self._dispatcher.state.progress
        reported = [progress[job_id].speed for job_id in entry.assigned if job_id in progress]
        speeds = [speed for speed in reported if speed is not None]
        return sum(speeds) if speeds else None


class _PluginCollector(Collector):
    """Counters of what failed or was slow in plugins."""

    def __init__(
        self,
        event_bus: EventBus,
        slow_hooks: Mapping[tuple[str, str], int],
        service_failures: Mapping[str, int],
    ) -> None:
        self._event_bus = event_bus
        self._slow_hooks = slow_hooks
        self._service_failures = service_failures
        self.metrics = PluginMetrics(())

    def collect(self) -> Iterator[Metric]:
        """Yield the present numbers."""
        failures = CounterMetricFamily(
            "distconv_listener_failures", "Events that a listener failed on.", labels=["listener"]
        )
        for name, count in self._event_bus.failures.items():
            failures.add_metric([name], count)
        yield failures
        services = CounterMetricFamily(
            "distconv_service_failures",
            "Times that a background service failed and was started again.",
            labels=["service"],
        )
        for name, count in self._service_failures.items():
            services.add_metric([name], count)
        yield services
        slow = CounterMetricFamily(
            "distconv_slow_hooks",
            "Calls into a plugin that took longer than hook_slow_ms.",
            labels=["plugin", "hook"],
        )
        for (plugin, hook), count in self._slow_hooks.items():
            slow.add_metric([plugin, hook], count)
        yield slow
        hidden = CounterMetricFamily(
            "distconv_metrics_failures",
            "Scrapes without a plugin's metrics, because they failed.",
            labels=["metrics"],
        )
        for name, count in self.metrics.failures.items():
            hidden.add_metric([name], count)
        yield hidden
