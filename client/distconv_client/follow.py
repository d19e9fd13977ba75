"""Follow jobs until they have ended: ask, show, wait, and ask again.

An outage of the daemon does not end this: the jobs continue, and so does following them, until the
outage has lasted for `Pace.outage_s_max`. The view decides what is shown, and how.

This polls, since a long poll occupies a connection for one job and returns only when that job has
ended, while a person wants to see progress. A poll asks for at most `ASKED_PER_POLL` jobs, in turn,
so that a thousand jobs do not cause a thousand requests every half a second.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from distconv_client.errors import ClientError, DaemonUnreachable, Refused
from distconvd.model import TERMINAL_STATUSES, Job

ASKED_PER_POLL = 32


class JobReader(Protocol):
    """The method of the client that is used here."""

    def job(self, job_id: str) -> Job:
        """Return the job as it is now."""
        ...


class View(Protocol):
    """Shows the state of the jobs."""

    def show(self, jobs: Mapping[str, Job]) -> None:
        """Show the present state of all followed jobs, by ID; called after each poll."""
        ...

    def outage(self, error: ClientError) -> None:
        """Show that the daemon did not answer; called once for each outage."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to poll, and how long to tolerate an outage; tests replace the clock."""

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
    """Show `jobs` until all have ended, and return them by ID, in their order.

    Args:
        reader: the client.
        jobs: the jobs to follow, as they were when last seen.
        view: shows the jobs after each poll.
        discover: returns further jobs to follow; with it, following goes on until it is
            interrupted, and jobs that have ended are shown once more and then dropped.
        pace: how often to poll.

    Raises what the reader raises; for an outage, only when it lasts too long.
    """
    watched = FollowedJobs(reader, {job.job_id: job for job in jobs})
    outage_since: float | None = None
    view.show(watched.jobs)
    while discover is not None or watched.open():
        pace.sleep(pace.poll_s)
        try:
            watched.refresh(() if discover is None else discover())
        except (DaemonUnreachable, Refused) as error:
            outage_since = note_outage(error, outage_since, view, pace)
            continue
        outage_since = None
        view.show(watched.jobs)
        if discover is not None:
            watched.forget_ended()
    return watched.jobs


def note_outage(error: ClientError, since: float | None, view: View, pace: Pace) -> float:
    """Return when the outage began; raises `error` when it has lasted too long."""
    if isinstance(error, Refused) and error.status < 500:
        raise error
    now = pace.clock()
    if since is None:
        view.outage(error)
        return now
    if now - since > pace.outage_s_max:
        raise error
    return since


class FollowedJobs:
    """The followed jobs as last seen, and the order in which to ask for them.

    Args:
        reader: the client.
        jobs: the jobs by ID.
    """

    def __init__(self, reader: JobReader, jobs: dict[str, Job]) -> None:
        self.jobs = jobs
        self._reader = reader
        self._due = deque(self.open())

    def open(self) -> list[str]:
        """Return the IDs of the jobs that have not ended."""
        return [job_id for job_id in self.jobs if not self._has_ended(job_id)]

    def refresh(self, fresh: Iterable[Job]) -> None:
        """Take over the `fresh` states, and ask for the next jobs in turn."""
        seen = {job.job_id: job for job in fresh}
        self._due.extend(job_id for job_id in seen if job_id not in self.jobs)
        self.jobs.update(seen)
        self._due = deque(job_id for job_id in self._due if not self._has_ended(job_id))
        for _ in range(min(ASKED_PER_POLL, len(self._due))):
            job_id = self._due[0]
            if job_id not in seen:
                self.jobs[job_id] = self._reader.job(job_id)
            self._due.rotate(-1)

    def _has_ended(self, job_id: str) -> bool:
        return self.jobs[job_id].status in TERMINAL_STATUSES

    def forget_ended(self) -> None:
        """Drop the jobs that have ended."""
        self.jobs = {job_id: self.jobs[job_id] for job_id in self.open()}
        self._due = deque(job_id for job_id in self._due if job_id in self.jobs)
