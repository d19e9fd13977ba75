"""Following jobs until they have ended: ask, show, wait a little, ask again.

A daemon that is away for a while ends nothing: the jobs go on, and so does the watching, until the
outage has lasted for `Pace.outage_s_max`. What is shown, and how, is the view's business.

Polling and no long poll: one long poll holds a connection for one job only, and progress is what a
person wants to see. A tick asks for at most `ASKED_PER_TICK` jobs, in turn, so that a thousand jobs
do not become a thousand requests every half a second.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from distconv_client.errors import ClientError, DaemonUnreachable, Refused
from distconvd.model import TERMINAL_STATUSES, Job

ASKED_PER_TICK = 32


class JobReader(Protocol):
    """What is needed of the client."""

    def job(self, job_id: str) -> Job:
        """Return the job as it is now."""
        ...


class View(Protocol):
    """Somebody who is told how the jobs stand."""

    def show(self, jobs: Mapping[str, Job]) -> None:
        """Take the present state of all followed jobs, by id; called once a tick."""
        ...

    def outage(self, error: ClientError) -> None:
        """Take note that the daemon did not answer this time; called once an outage."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to ask, and how long to bear with a daemon that is away; tests replace the clock."""

    poll_s: float = 0.5
    outage_s_max: float = 300.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


DEFAULT_PACE = Pace()


def follow(
    reader: JobReader,
    jobs: Iterable[Job],
    view: View,
    *,
    discover: Callable[[], Iterable[Job]] | None = None,
    pace: Pace = DEFAULT_PACE,
) -> dict[str, Job]:
    """Show `jobs` until all have ended, and return them by id, in their order.

    Args:
        reader: the client.
        jobs: the jobs to follow, as they were when last seen.
        view: is told after each tick.
        discover: returns jobs that are to be followed as well; with it, following goes on until
            it is interrupted, and jobs that have ended are shown once more and then let go.
        pace: how often to ask.

    Raises what the reader raises; an outage only when it lasts too long.
    """
    watched = Watched(reader, {job.job_id: job for job in jobs})
    outage_since: float | None = None
    view.show(watched.jobs)
    while discover is not None or watched.open():
        pace.sleep(pace.poll_s)
        try:
            watched.refresh(() if discover is None else discover())
        except (DaemonUnreachable, Refused) as error:
            outage_since = borne(error, outage_since, view, pace)
            continue
        outage_since = None
        view.show(watched.jobs)
        if discover is not None:
            watched.forget_ended()
    return watched.jobs


def borne(error: ClientError, since: float | None, view: View, pace: Pace) -> float:
    """Return since when the daemon has been away; raises `error` when that is for too long."""
    if isinstance(error, Refused) and error.status < 500:
        raise error
    now = pace.clock()
    if since is None:
        view.outage(error)
        return now
    if now - since > pace.outage_s_max:
        raise error
    return since


class Watched:
    """The followed jobs as last seen, and whose turn it is to be asked about.

    Args:
        reader: the client.
        jobs: the jobs by id.
    """

    def __init__(self, reader: JobReader, jobs: dict[str, Job]) -> None:
        self.jobs = jobs
        self._reader = reader
        self._pending = deque(self.open())

    def open(self) -> list[str]:
        """Return the ids of the jobs that have not ended."""
        return [job_id for job_id in self.jobs if not self._has_ended(job_id)]

    def refresh(self, fresh: Iterable[Job]) -> None:
        """Take the `fresh` states as they are, and ask for those whose turn it is."""
        seen = {job.job_id: job for job in fresh}
        self._pending.extend(job_id for job_id in seen if job_id not in self.jobs)
        self.jobs.update(seen)
        self._pending = deque(job_id for job_id in self._pending if not self._has_ended(job_id))
        for _ in range(min(ASKED_PER_TICK, len(self._pending))):
            job_id = self._pending[0]
            if job_id not in seen:
                self.jobs[job_id] = self._reader.job(job_id)
            self._pending.rotate(-1)

    def _has_ended(self, job_id: str) -> bool:
        return self.jobs[job_id].status in TERMINAL_STATUSES

    def forget_ended(self) -> None:
        """Let go of the jobs that have ended."""
        self.jobs = {job_id: self.jobs[job_id] for job_id in self.open()}
        self._pending = deque(job_id for job_id in self._pending if job_id in self.jobs)
