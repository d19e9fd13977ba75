"""What only a reply holds: facts of the moment that the daemon adds to its stored records."""

from typing import Any

import msgspec

from distconvd.model import EngineRecord


class EngineView(EngineRecord, frozen=True):
    """One engine as `GET /engines/` tells it; `status` is its state as the scheduler sees it."""

    last_seen_at: int | None = None
    """Ms since the epoch; None: not since the daemon started."""
    free_gb: float | None = None
    cpu_percent: float | None = None
    temperature_c: float | None = None
    jobs: list[str] = []
    """Ids of the jobs that it holds."""
    reserved: list[str] = []
    """Ids of the jobs that are kept for it until it asks for work."""
    reported_status: str | None = None
    """The engine's own word for its status."""


class QueueView(msgspec.Struct, frozen=True):
    """Pending jobs: those that may go at once, and those that wait for a time."""

    ready: int = 0
    delayed: int = 0
    oldest_s: float | None = None
    """Age of the oldest that may go; None without any."""


class StatusView(msgspec.Struct, frozen=True):
    """The answer of `GET /status`: counts at a glance."""

    version: str
    uptime_s: float
    jobs: dict[str, int]
    """By status."""
    queue: QueueView
    engines: dict[str, int]
    """By state, those with none left out."""
    not_ready: dict[str, str] = {}
    """Why changes are refused, by cause; empty when they are not."""


class Why(msgspec.Struct, frozen=True):
    """The answer of `GET /jobs/{id}/why`: why a job waits, or why it is where it is."""

    job_id: str
    status: str
    summary: str
    """One sentence."""
    facts: dict[str, Any] = {}
    """The numbers behind it; which ones depends on the status."""
