"""Wait for jobs at the command line, and explain after Ctrl-C that they continue."""

from collections.abc import Callable, Iterable, Mapping

import click

from distconv_client.api import Client
from distconv_client.display import progress
from distconv_client.display.terminal import stderr_console
from distconv_client.display.text import clean
from distconv_client.errors import ClientError
from distconv_client.follow import DEFAULT_PACE, Pace, View, follow
from distconv_client.shared import INTERRUPTED
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
    """Follow jobs until they have ended; on Ctrl-C, print how to return to them and exit 130.

    Args:
        client: the client.
        jobs: the jobs as last seen.
        as_json: print each change as JSON on stdout instead of bars or lines on stderr.
        discover: see `follow`.
        pace: see `follow`.
    """
    begun = list(jobs)
    seen = LastSeen(begun)
    try:
        with progress.opened(stderr_console(), as_json=as_json) as view:
            seen.view = view
            return follow(client, begun, seen, discover=discover, pace=pace)
    except KeyboardInterrupt:
        click.echo(f"\n{interruption(seen.jobs.values())}", err=True)
        click.get_current_context().exit(INTERRUPTED)


class LastSeen:
    """Passes everything on to a view, and remembers the last state of the jobs.

    Args:
        jobs: their state before anything is shown.
    """

    view: View

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.jobs: Mapping[str, Job] = {job.job_id: job for job in jobs}

    def show(self, jobs: Mapping[str, Job]) -> None:
        """Remember the jobs and pass them on."""
        self.jobs = dict(jobs)
        self.view.show(jobs)

    def outage(self, error: ClientError) -> None:
        """Pass it on."""
        self.view.outage(error)


def interruption(jobs: Iterable[Job]) -> str:
    """Return the message after Ctrl-C while jobs are followed."""
    left = [clean(job.job_id) for job in jobs if job.status not in TERMINAL_STATUSES]
    named = " ".join(left) if 0 < len(left) <= NAMED_MAX else ""
    return (
        f"Stopped watching; the jobs continue.\nTo watch them again: distconv watch {named}".rstrip()
        + f"\nTo cancel them:      distconv cancel {named or 'JOB...'}"
    )
