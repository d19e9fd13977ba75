"""What only a reply holds: facts of the moment that the daemon adds to its stored records."""

from typing import Any

import msgspec

from distconvd.model import EngineRecord, EngineState


class EngineView(EngineRecord, frozen=True):
    """One engine as `GET /engines/` tells it; `status` is its state as the scheduler sees it."""

    last_seen_at: int | None = None
    """Ms since the epoch; None: not since the daemon started."""
    free_gb: float | None = None
    cpu_percent: float | None = None
    temperature_c: float | None = None
    jobs: list[Any] = []
    """The jobs that it holds."""

    @property
    def state(self) -> str:
        """Its state in one word, also where an older daemon leaves quarantine to a time stamp."""
        return EngineState.DRAINING if self.draining and self.status == "idle" else self.status


class Why(msgspec.Struct, frozen=True):
    """The answer of `GET /jobs/{id}/why`: why a job waits, or why it is where it is."""

    job_id: str
    status: str
    summary: str
    """One sentence."""
