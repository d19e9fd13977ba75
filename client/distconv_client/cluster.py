"""Take snapshots of a farm, again and again, without loading the daemon.

A snapshot takes a handful of requests: counts, engines, and as many assigned jobs as can be shown. It
never lists jobs, since a listing costs more the more jobs the daemon has stored. The next snapshot
comes after `EVERY_S`, or later if the daemon was slow to answer, so that snapshots take at most a
tenth of the time.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from distconv_client.errors import ClientError, DaemonUnreachable, NotFound, Refused
from distconv_client.views import EngineView, StatusView
from distconvd.model import Job

EVERY_S = 1.0
SHARE = 10
"""A snapshot that took one second is followed by the next ten seconds later."""
EVERY_S_MAX = 30.0
JOBS_MAX = 100
ASKED_PER_REFRESH = 32
"""If there are more jobs than that, each snapshot asks for the next ones in turn."""
TOO_MANY = 429


class FarmReader(Protocol):
    """The methods of the client that are used here."""

    @property
    def server(self) -> str:
        """The daemon's address."""
        ...

    def status(self) -> StatusView:
        """Return the counts."""
        ...

    def engines(self) -> list[EngineView]:
        """Return all engines."""
        ...

    def job(self, job_id: str) -> Job:
        """Return one job."""
        ...


class FarmSnapshot(msgspec.Struct, frozen=True):
    """The farm at one moment; `distconv top --json` prints it.

    Attributes:
        at_ms: when it was taken, in ms since the epoch by this machine's clock.
        running: jobs on engines, the one with most progress first.
    """

    at_ms: int
    status: StatusView
    engines: list[EngineView]
    running: list[Job]


@dataclass
class Outage:
    """Since when the daemon has not answered, and the last error."""

    since_s: float
    error: ClientError


@dataclass
class FarmWatcher:
    """Takes snapshots of one farm, at the pace described above.

    Args:
        client: the daemon.
        clock: seconds since the epoch.
        ticker: monotonic seconds.
    """

    client: FarmReader
    clock: Callable[[], float] = time.time
    ticker: Callable[[], float] = time.monotonic
    snapshot: FarmSnapshot | None = None
    """The last snapshot that succeeded."""
    outage: Outage | None = None
    returned_s: float | None = None
    """When the last outage ended, by `clock`."""
    next_in_s: float = field(default=0.0, init=False)
    _known: dict[str, Job | None] = field(default_factory=dict[str, "Job | None"], init=False)
    """Jobs on engines as last seen, least recently seen first; None: no longer assigned."""

    def refresh_snapshot(self, jobs_max: int = JOBS_MAX) -> None:
        """Take a snapshot now. An outage is recorded; raises errors that waiting would not cure."""
        began_s = self.ticker()
        try:
            snapshot = self._snapshot(jobs_max)
        except (DaemonUnreachable, Refused) as error:
            if isinstance(error, Refused) and error.status < 500 and error.status != TOO_MANY:
                raise
            self.outage = Outage(self.outage.since_s if self.outage else self.clock(), error)
        else:
            if self.outage is not None:
                self.returned_s, self.outage = self.clock(), None
            self.snapshot = snapshot
        took_s = self.ticker() - began_s
        self.next_in_s = min(EVERY_S_MAX, max(EVERY_S, SHARE * took_s))

    def _snapshot(self, jobs_max: int) -> FarmSnapshot:
        status = self.client.status()
        engines = sorted(self.client.engines(), key=lambda engine: engine.engine_id)
        assigned = itertools.chain.from_iterable(engine.jobs for engine in engines)
        self._refresh_jobs(list(itertools.islice(assigned, min(jobs_max, JOBS_MAX))))
        running = sorted((job for job in self._known.values() if job), key=_remaining_work)
        return FarmSnapshot(int(self.clock() * 1000), status, engines, running)

    def _refresh_jobs(self, assigned: list[str]) -> None:
        """Ask for the jobs that were never seen, then for the least recently seen ones."""
        known = {job_id: job for job_id, job in self._known.items() if job_id in assigned}
        due = [*(job_id for job_id in assigned if job_id not in known), *known]
        for job_id in due[:ASKED_PER_REFRESH]:
            known.pop(job_id, None)
            known[job_id] = self._maybe_job(job_id)
        self._known = known

    def _maybe_job(self, job_id: str) -> Job | None:
        """Return a job; None if it is no longer assigned, or was archived meanwhile."""
        try:
            job = self.client.job(job_id)
        except NotFound:
            return None
        return job if job.status == "assigned" else None


def _remaining_work(job: Job) -> tuple[float, str]:
    return -(job.progress.fraction if job.progress else 0.0), job.job_id
