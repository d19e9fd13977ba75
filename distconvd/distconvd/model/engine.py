"""Define the stored record of an engine, and the states of an engine.

What is true only for the moment (free disk space, load, time of the last heartbeat) is runtime
state of the dispatcher and not stored.
"""

from enum import StrEnum

import msgspec


class EngineState(StrEnum):
    """The state of an engine for the scheduler; derived, see `distconvd.dispatch.lifecycle`."""

    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    OFFLINE = "offline"
    QUARANTINED = "quarantined"


class EngineRecord(msgspec.Struct, frozen=True):
    """The stored record of one engine: what it last reported, and what people ordered."""

    engine_id: str
    engine_type: str = "transcoder"
    supported_codecs: list[str] = []
    """Empty: it takes any codec."""
    status: str = "idle"
    """As the engine reported it; any value but `idle` means that it wants no job."""
    storage_capacity_gb: float | None = None
    streaming_support: bool = False
    benchmark_time: float | None = None
    """Seconds for the fixed benchmark encode; lower is faster. None: it gets no jobs."""
    benchmarks: dict[str, float] = {}
    """The same by codec; goes before `benchmark_time` for a job of that codec."""
    slots: int = 1
    """How many jobs it runs at the same time."""
    tags: list[str] = []
    hostname: str | None = None
    version: str | None = None
    registered_at: int = 0
    draining: bool = False
    quarantined_until: int | None = None
    failed_jobs: list[str] = []
    """Jobs that failed on it in a row, for quarantine; a success empties it."""
    benchmark_fps: dict[str, float] = {}
    """Frames per second in the benchmark, by codec: the same figures for people."""
    capabilities: list[str] | None = None
    """The kinds of sources that it has proved to convert; None: it never reported any."""
    benchmark_requested_at: int | None = None
    """When a person asked it to run its benchmark again; None once that is done."""
    lacks: str | None = None
    """The share, path or permission that it lacked for its last job that failed for want of one; None
    once it has completed a job."""
