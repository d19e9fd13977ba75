"""Waiting for jobs at the command line: follow them, and say what Ctrl-C does and does not do."""

from collections.abc import Callable, Iterable

import click

from distconv_client import progress
from distconv_client.api import Client
from distconv_client.follow import DEFAULT_PACE, Pace, follow
from distconv_client.shared import INTERRUPTED
from distconv_client.terminal import stderr_console
from distconv_client.text import clean
from distconvd.model import TERMINAL_STATUSES, Job

NAMED_MAX = 5


def wait_for(
    client: Client,
    jobs: Iterable[Job],
    *,
    as_json: bool = False,
    discover: Callable[[], Iterable[Job]] | None = None,
    pace: Pace = DEFAULT_PACE,
) -> dict[str, Job]:
    """Follow jobs until they have ended; on Ctrl-C says how to look at them, and exits 130.

    Args:
        client: the client.
        jobs: the jobs as last seen.
        as_json: print each change as JSON on stdout instead of bars or lines on stderr.
        discover: see `follow`.
        pace: see `follow`.
    """
    known = {job.job_id: job for job in jobs}
    try:
        with progress.opened(stderr_console(), as_json=as_json) as view:
            return follow(client, known.values(), view, discover=discover, pace=pace)
    except KeyboardInterrupt:
        click.echo(f"\n{interruption(known.values())}", err=True)
        click.get_current_context().exit(INTERRUPTED)


def interruption(jobs: Iterable[Job]) -> str:
    """Return what a person should know who pressed Ctrl-C while jobs were followed."""
    left = [clean(job.job_id) for job in jobs if job.status not in TERMINAL_STATUSES]
    named = " ".join(left) if 0 < len(left) <= NAMED_MAX else ""
    return (
        f"Stopped watching; the jobs go on.\nLook again: distconv watch {named}".rstrip()
        + f"\nStop them:  distconv cancel {named or 'JOB...'}"
    )
