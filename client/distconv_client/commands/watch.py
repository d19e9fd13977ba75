"""Follow submitted jobs until they have ended: the command watch."""

import itertools
from collections.abc import Callable

import click

from distconv_client.api import Client
from distconv_client.help_examples import Command
from distconv_client.shared import Flags, pass_flags, shared_flags
from distconv_client.waiting import wait_for
from distconvd.model import Job, JobStatus

WATCHED_JOBS = 200
DISCOVERY_EVERY_S = 2.0
DISCOVERY_SHARE = 10


@click.command(
    cls=Command,
    examples=(
        "distconv watch",
        "distconv watch 1763840000000000_1 1763840000000000_2",
        "distconv watch --json 1763840000000000_1 | jq .progress.fraction",
    ),
)
@click.argument("job_ids", metavar="[JOB...]", nargs=-1)
@shared_flags
@pass_flags
def watch(flags: Flags, job_ids: tuple[str, ...]) -> None:
    """Follow jobs live until they have ended.

    Without JOB: all active jobs, until Ctrl-C. With --json: a job's document on a line of its own
    whenever it has changed. Exits 1 if a named job did not complete.
    """
    with flags.client() as client:
        if not job_ids:
            click.echo("Watching all active jobs; press Ctrl-C to stop.", err=True)
            wait_for(
                client,
                (),
                as_json=flags.as_json,
                discover=Discovery(client, flags.pace.clock),
                pace=flags.pace,
            )
            return
        named = [client.job(job_id) for job_id in job_ids]
        ended = wait_for(client, named, as_json=flags.as_json, pace=flags.pace)
    if any(job.status is not JobStatus.COMPLETED for job in ended.values()):
        click.get_current_context().exit(1)


class Discovery:
    """Finds the running and pending jobs without loading the daemon.

    A listing costs more the more jobs the daemon has stored, so listings take at most a tenth of
    the time.

    Args:
        client: the client.
        clock: returns monotonic seconds.
    """

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._due_s = clock()

    def __call__(self) -> list[Job]:
        """Return the active jobs, the running ones first; none if it is too early."""
        began_s = self._clock()
        if began_s < self._due_s:
            return []
        found = itertools.chain.from_iterable(
            self._client.jobs(status=status, limit=WATCHED_JOBS)
            for status in (JobStatus.ASSIGNED, JobStatus.PENDING)
        )
        jobs = list(itertools.islice(found, WATCHED_JOBS))
        took_s = self._clock() - began_s
        self._due_s = began_s + max(DISCOVERY_EVERY_S, DISCOVERY_SHARE * took_s)
        return jobs
