"""Change jobs: the commands cancel, pause, resume and retry."""

import click

from distconv_client.display import text
from distconv_client.display.terminal import print_json, stdout_console
from distconv_client.help_examples import Command
from distconv_client.shared import Flags, each, pass_flags, shared_flags
from distconvd.model import Job


@click.command(
    cls=Command,
    examples=(
        "distconv cancel 1763840000000000_1",
        "distconv jobs --json --label show=bunny | jq -r .job_id | xargs distconv cancel",
    ),
)
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@shared_flags
@pass_flags
def cancel(flags: Flags, job_ids: tuple[str, ...]) -> None:
    """Cancel jobs that have not ended; a running encode is stopped.

    With --json: each job's document, one a line. Exits 1 if a job could not be cancelled.
    """
    with flags.client() as client:
        each(job_ids, client.cancel, lambda job: print_job(job, flags))


@click.command(
    cls=Command,
    examples=(
        "distconv pause 1763840000000000_1",
        "distconv jobs --json --status assigned | jq -r .job_id | xargs distconv pause",
    ),
)
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@shared_flags
@pass_flags
def pause(flags: Flags, job_ids: tuple[str, ...]) -> None:
    """Pause jobs; a running encode is suspended.

    Its engine keeps the job and its slot. With --json: each job's document, one a line. Exits 1 if
    a job could not be paused.
    """
    with flags.client() as client:
        each(job_ids, client.pause, lambda job: print_job(job, flags))


@click.command(cls=Command, examples=("distconv resume 1763840000000000_1",))
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@shared_flags
@pass_flags
def resume(flags: Flags, job_ids: tuple[str, ...]) -> None:
    """Resume paused jobs.

    With --json: each job's document, one a line. Exits 1 if a job could not be resumed.
    """
    with flags.client() as client:
        each(job_ids, client.resume, lambda job: print_job(job, flags))


@click.command(
    cls=Command,
    examples=(
        "distconv retry 1763840000000000_1",
        "distconv jobs --json --status failed_permanently | jq -r .job_id | xargs distconv retry",
    ),
)
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@shared_flags
@pass_flags
def retry(flags: Flags, job_ids: tuple[str, ...]) -> None:
    """Start jobs again that have ended.

    With --json: each job's document, one a line. Exits 1 if a job could not be started.
    """
    with flags.client() as client:
        each(job_ids, client.retry, lambda job: print_job(job, flags))


def print_job(job: Job, flags: Flags) -> None:
    """Print a job's ID, present status and source."""
    if flags.as_json:
        return print_json(job)
    status = f"{job.status}, paused" if job.paused else job.status
    line = f"{text.clean(job.job_id)}  {status}  {text.source_name(job.source_url)}"
    return stdout_console().out(line, highlight=False)
