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


class Why(msgspec.Struct, frozen=True):
    """The answer of `GET /jobs/{id}/why`: why a job waits, or why it is where it is."""

    job_id: str
    status: str
    summary: str
    """One sentence."""
    facts: dict[str, Any] = {}
    """The numbers behind it; which ones depends on the status."""
