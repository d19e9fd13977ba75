"""Count the outcomes of jobs, for `GET /metrics`.

The daemon's own metrics show the state at the moment of a scrape; these count what has happened
since the start, from events, which are published once they are durable. They serve for rates,
quantiles and alerts: failures by class, waiting times, how fast each codec is encoded and how much
space it saves.

Labels are bounded: all codecs that are not well known share one label. Of the few kinds of event
that count, only the needed fields are decoded, because a listener blocks the daemon.
"""

from collections.abc import Iterable
from typing import TypeVar, cast

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric

from distconvd import hookimpl
from distconvd.hookspecs import MetricsFactory, PluginContext, Registrar
from distconvd.model import CODECS, FailureClass, canonical_codec
from distconvd.plugin_api import Event

NAME = "prometheus"
OUTCOMES = {
    "job.completed": "completed",
    "job.failed": "failed_permanently",
    "job.cancelled": "cancelled",
}
_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.5, 2)
_SPEEDS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32)


M = TypeVar("M", Counter, Histogram)


class _Result(msgspec.Struct, frozen=True):
    size_bytes: float | None = None
    source_size_bytes: float | None = None
    source_duration_s: float | None = None
    wall_s: float | None = None


class _Job(msgspec.Struct, frozen=True):
    """The fields of a job that are counted."""

    target_codec: str
    priority: int = 0
    created_at: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    error_class: FailureClass | None = None
    result: _Result | None = None


_decode = msgspec.json.Decoder(_Job).decode


class JobMetrics:
    """The listener, and the collector of what it has counted."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._children: dict[tuple[Counter | Histogram, tuple[str, ...]], Counter | Histogram] = {}
        self._jobs_ended = Counter(
            "distconv_jobs_ended",
            "Jobs that have ended.",
            ("status", "codec", "error_class"),
            registry=registry,
        )
        self._requeued = Counter(
            "distconv_jobs_requeued",
            "Jobs that went back into the queue after an attempt.",
            ("codec",),
            registry=registry,
        )
        self._wait = Histogram(
            "distconv_job_wait_seconds",
            "Time from a job's submission to its first assignment, with any not_before delay.",
            ("priority",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._run = Histogram(
            "distconv_job_run_seconds",
            "Time from the assignment of a completed job's last attempt to its end.",
            ("codec",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._ratio = Histogram(
            "distconv_job_size_ratio",
            "Size of a completed job's output divided by that of its source.",
            ("codec",),
            buckets=_RATIOS,
            registry=registry,
        )
        self._speed = Histogram(
            "distconv_job_speed",
            "Seconds of media made per second of an engine's work, over all stages.",
            ("codec",),
            buckets=_SPEEDS,
            registry=registry,
        )

    def collect(self) -> Iterable[Metric]:
        return self._registry.collect()

    def on_event(self, event: Event) -> None:
        """Count an event."""
        if event.record is None:
            return
        if event.kind in OUTCOMES:
            self._count_end(OUTCOMES[event.kind], _decode(event.record))
        elif event.kind == "job.assigned" and event.attempt == 1:
            self._count_begin(event, _decode(event.record))
        elif event.kind == "job.requeued":
            self._child(self._requeued, _codec(_decode(event.record))).inc()

    def _count_begin(self, event: Event, job: _Job) -> None:
        if job.started_at == event.at_ms:  # else an engine came back and resumed its attempt
            waited_ms = max(0, event.at_ms - job.created_at)
            self._child(self._wait, str(job.priority)).observe(waited_ms / 1000)

    def _count_end(self, status: str, job: _Job) -> None:
        codec = _codec(job)
        self._child(self._jobs_ended, status, codec, job.error_class or "none").inc()
        if status != "completed":
            return
        if job.started_at is not None and job.finished_at is not None:
            ran_ms = job.finished_at - job.started_at
            self._child(self._run, codec).observe(max(0, ran_ms) / 1000)
        result = job.result
        if result is None:
            return
        if result.size_bytes is not None and result.source_size_bytes:
            self._child(self._ratio, codec).observe(result.size_bytes / result.source_size_bytes)
        if result.source_duration_s is not None and result.wall_s:
            self._child(self._speed, codec).observe(result.source_duration_s / result.wall_s)

    def _child(self, metric: M, *labels: str) -> M:
        """Return the series of a metric with these labels, cached: the library's lookup is slow."""
        child = self._children.get((metric, labels))
        if child is None:
            child = self._children[metric, labels] = metric.labels(*labels)
        return cast("M", child)


def _codec(job: _Job) -> str:
    codec = canonical_codec(job.target_codec)
    return codec if codec in CODECS else "other"


def _make(context: PluginContext) -> JobMetrics:
    return JobMetrics()


@hookimpl
def distconvd_register_metrics(registrar: Registrar[MetricsFactory]) -> None:
    """Register the metrics."""
    registrar.add(NAME, _make)
