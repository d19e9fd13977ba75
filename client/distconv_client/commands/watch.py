"""The command that follows jobs that are there already."""

import itertools
from collections.abc import Iterator

import click

from distconv_client.api import Client
from distconv_client.shared import Flags, pass_flags, shared_flags
from distconv_client.teaching import Command
from distconv_client.waiting import wait_for
from distconvd.model import Job, JobStatus

WATCHED_JOBS = 200


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
    """Follow jobs live: those named until they have ended, else all active ones until Ctrl-C.

    With --json: a job's document on a line of its own whenever it has changed. Exits 1 if a named
    job did not complete.
    """
    with flags.client() as client:
        if not job_ids:
            wait_for(client, (), as_json=flags.as_json, discover=lambda: active(client))
            return
        named = [client.job(job_id) for job_id in job_ids]
        ended = wait_for(client, named, as_json=flags.as_json)
    if any(job.status is not JobStatus.COMPLETED for job in ended.values()):
        click.get_current_context().exit(1)


def active(client: Client) -> Iterator[Job]:
    """Iterate over the jobs that run or wait, the running ones first, within a bound."""
    found = itertools.chain.from_iterable(
        client.jobs(status=status, limit=WATCHED_JOBS)
        for status in (JobStatus.ASSIGNED, JobStatus.PENDING)
    )
    return itertools.islice(found, WATCHED_JOBS)
