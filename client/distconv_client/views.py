"""Define the structs of replies: stored records with the daemon's facts of the moment."""

from typing import Any

import msgspec

from distconvd.model import EngineRecord


class EngineView(EngineRecord, frozen=True):
    """One engine in a reply of `GET /engines/`; `status` is the scheduler's view of its state."""

    last_seen_at: int | None = None
    """Ms since the epoch; None: not seen since the daemon started."""
    free_gb: float | None = None
    cpu_percent: float | None = None
    temperature_c: float | None = None
    jobs: list[str] = []
    """IDs of its assigned jobs."""
    reserved: list[str] = []
    """IDs of the jobs that are reserved for it until it asks for work."""
    reported_status: str | None = None
    """The status that the engine itself reported."""


class QueueView(msgspec.Struct, frozen=True):
    """Pending jobs: those that may be assigned now, and those that wait for a time."""

    ready: int = 0
    delayed: int = 0
    oldest_s: float | None = None
    """Age of the oldest ready job; None if there is none."""


class StatusView(msgspec.Struct, frozen=True):
    """The reply of `GET /status`: counts at a glance."""

    version: str
    uptime_s: float
    jobs: dict[str, int]
    """By status."""
    queue: QueueView
    engines: dict[str, int]
    """By state; states without engines are left out."""
    not_ready: dict[str, str] = {}
    """Why changes are refused, by cause; empty when they are accepted."""


class Why(msgspec.Struct, frozen=True):
    """The reply of `GET /jobs/{id}/why`: why a job waits, or why it is on its engine."""

    job_id: str
    status: str
    summary: str
    """One sentence."""
    facts: dict[str, Any] = {}
    """The numbers behind it; which ones depends on the status."""
