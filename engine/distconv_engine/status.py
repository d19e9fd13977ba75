"""Describe an engine: who it is, what it has verified, and whether it wants work."""

from collections.abc import Callable

import trio
from msgspec import UNSET

from distconv_engine import __version__
from distconv_engine.attempts.active import ActiveAttempts
from distconv_engine.config import Config
from distconv_engine.host.benchmark import Benchmark
from distconv_engine.host.capabilities import Capabilities
from distconv_engine.host.disk_backoff import SpaceBackoff
from distconv_engine.host.disk_space import has_disk_space
from distconv_engine.host.metrics import cpu_percent, disk_gb, temperature_c
from distconv_engine.self_test.outcome import Outcome
from distconvd.model import Heartbeat, HeartbeatReply, HeldJob

_PAUSE_HEARTBEATS = 3
"""The first pause after a job did not fit, in heartbeat intervals."""


class EngineStatus:
    """The present state of an engine, as its heartbeats report it."""

    def __init__(self, config: Config, engine_id: str, hostname: str) -> None:
        self.config = config
        self.engine_id = engine_id
        self.active_attempts = ActiveAttempts()
        self.space_backoff = SpaceBackoff(_PAUSE_HEARTBEATS * config.heartbeat_s)
        self.draining = trio.Event()
        self.capabilities: Capabilities | None = None
        self.benchmark: Benchmark | None = None
        self.self_test: Outcome | None = None
        self.is_benchmarking = False
        """Its benchmark runs, or will as soon as its jobs have ended: it wants nothing new."""
        self.on_benchmark_request: Callable[[int], object] = int
        """Called with the daemon's request for a new benchmark."""
        self.unacked_reports: Callable[[], list[HeldJob]] = list
        """Returns the attempts that have ended here, which the daemon does not know yet."""
        self._hostname = hostname

    @property
    def status(self) -> str:
        """The word that the scheduler reads: only `idle` wants work, also while jobs run."""
        if self.draining.is_set():
            return "draining"
        if not self.has_disk_space():
            return "disk-full"
        if self.capabilities is None or self.benchmark is None:
            return "starting"
        return "benchmarking" if self.is_benchmarking else "idle"

    def has_disk_space(self) -> bool:
        """Whether the disks that each job needs have more than the reserve, and the pause after
        the last job that did not fit is over."""
        return has_disk_space(self.config) and self.space_backoff.is_over()

    def apply(self, reply: HeartbeatReply) -> None:
        """Apply the daemon's answer to a heartbeat."""
        self.active_attempts.apply(reply.jobs)
        if isinstance(reply.benchmark_requested_at, int):
            self.on_benchmark_request(reply.benchmark_requested_at)

    def _jobs(self) -> list[HeldJob]:
        active = self.active_attempts.for_heartbeat()
        known = {(job.job_id, job.attempt) for job in active}
        return active + [
            job for job in self.unacked_reports() if (job.job_id, job.attempt) not in known
        ]

    def heartbeat(self) -> Heartbeat:
        """Return the message; what is not verified yet is left out: the daemon keeps it."""
        capacity_gb, free_gb = disk_gb(self.config.work_dir)
        capabilities, benchmark = self.capabilities, self.benchmark
        return Heartbeat(
            engine_id=self.engine_id,
            engine_type="transcoder",
            supported_codecs=UNSET if capabilities is None else capabilities.codecs,
            status=self.status,
            storage_capacity_gb=capacity_gb,
            streaming_support=self.config.stream_min_mb > 0,
            benchmark_time=UNSET if benchmark is None else benchmark.overall_s,
            benchmarks=UNSET if benchmark is None else benchmark.seconds,
            benchmark_fps=UNSET if benchmark is None else benchmark.frames_per_second(),
            slots=self.config.slots,
            tags=self.config.tags,
            capabilities=UNSET if self.self_test is None else self.self_test.passed,
            hostname=self._hostname,
            version=__version__,
            free_gb=free_gb,
            cpu_percent=cpu_percent(),
            temperature_c=temperature_c(),
            jobs=self._jobs(),
        )
