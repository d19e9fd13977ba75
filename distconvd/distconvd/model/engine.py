"""An engine: a machine that transcodes. Its durable part only; what a heartbeat tells of the
moment (free disk, load, when it was last seen) is runtime state of the dispatcher."""

from enum import StrEnum

import msgspec


class EngineState(StrEnum):
    """What an engine is to the scheduler; derived, see `distconvd.dispatch`."""

    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    OFFLINE = "offline"
    QUARANTINED = "quarantined"


class EngineRecord(msgspec.Struct, frozen=True):
    """The stored record of one engine: what it last reported, merged, and what people ordered."""

    engine_id: str
    engine_type: str = "transcoder"
    supported_codecs: list[str] = []
    """Empty: it takes any codec."""
    status: str = "idle"
    """The engine's own word; any but `idle` means that it wants nothing."""
    storage_capacity_gb: float | None = None
    streaming_support: bool = False
    benchmark_time: float | None = None
    """Seconds for the fixed benchmark encode; lower is faster. None: never scheduled."""
    benchmarks: dict[str, float] = {}
    """The same by codec; wins over `benchmark_time` for a job of that codec."""
    slots: int = 1
    """How many jobs it runs at once."""
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
    benchmark_requested_at: int | None = None
    """Since when a person has wanted it to measure anew, until a benchmark answers that."""
