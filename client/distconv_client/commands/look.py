"""Show jobs: the commands status, jobs, why and attempts."""

import itertools

import click

from distconv_client.display import tables, text
from distconv_client.display.terminal import print_json, stderr_console, stdout_console
from distconv_client.help_examples import Command
from distconv_client.shared import Flags, each, pass_flags, shared_flags
from distconv_client.views import Why
from distconvd.model import Attempt, Job, JobStatus

SHOWN_JOBS = 50


@click.command(
    cls=Command,
    examples=(
        "distconv status 1763840000000000_1",
        "distconv status --json 1763840000000000_1 1763840000000000_2 | jq -r .status",
    ),
)
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@shared_flags
@pass_flags
def status(flags: Flags, job_ids: tuple[str, ...]) -> None:
    """Show all details of one or more jobs.

    With --json: each job's document, one a line. Exits 1 if a job does not exist.
    """
    console = stdout_console()

    def show(job: Job) -> None:
        if flags.as_json:
            return print_json(job)
        tables.print_facts(console, tables.job_facts(job))
        return console.out() if len(job_ids) > 1 else None

    with flags.client() as client:
        each(job_ids, client.job, show)


def label(value: str) -> tuple[str, str]:
    """Parse a label of the form `name=value`."""
    name, equals, rest = value.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{value!r} is not of the form NAME=VALUE.")
    return name, rest


@click.command(
    cls=Command,
    examples=(
        "distconv jobs",
        "distconv jobs --status failed_permanently --limit 10",
        "distconv jobs --label show=bunny --codec av1",
        "distconv jobs --json --status completed | jq -r .output_url",
    ),
)
@click.option(
    "--status",
    "state",
    type=click.Choice([one.value for one in JobStatus]),
    help="Only jobs with this status.",
)
@click.option("--engine", metavar="ID", help="Only jobs now or last assigned to this engine.")
@click.option("--codec", metavar="NAME", help="Only jobs with this target codec.")
@click.option(
    "--label", "wanted", type=label, metavar="NAME=VALUE", help="Only jobs with this label."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N jobs.")
@click.option("--oldest", is_flag=True, help="Start with the oldest job instead of the newest.")
@shared_flags
@pass_flags
def jobs(
    flags: Flags,
    state: str | None,
    engine: str | None,
    codec: str | None,
    wanted: tuple[str, str] | None,
    limit: int | None,
    oldest: bool,
) -> None:
    """List jobs, the newest first.

    Without --limit the table shows at most 50 jobs, and says if there are more; --json prints all.
    """
    with flags.client() as client:
        bound = limit if limit or flags.as_json else SHOWN_JOBS + 1
        found = client.jobs(
            status=state, engine=engine, codec=codec, label=wanted, limit=bound,
            newest_first=not oldest,
        )  # fmt: skip
        if flags.as_json:
            for job in found:
                print_json(job)
            return
        shown = list(itertools.islice(found, limit or SHOWN_JOBS))
        more = limit is None and next(found, None) is not None
    print_jobs(shown)
    if more:
        stderr_console().out(
            f"There are more than {SHOWN_JOBS} jobs; list them with --limit N or --json."
        )


def print_jobs(shown: list[Job]) -> None:
    """Print jobs as a table, or say that none was found."""
    if shown:
        tables.print_table(stdout_console(), tables.JOB_COLUMNS, map(tables.job_row, shown))
    else:
        stderr_console().out("No jobs found. Submit one: distconv submit FILE --codec h265")


@click.command(
    cls=Command,
    examples=(
        "distconv why 1763840000000000_1",
        "distconv why --json 1763840000000000_1",
    ),
)
@click.argument("job_id", metavar="JOB")
@shared_flags
@pass_flags
def why(flags: Flags, job_id: str) -> None:
    """Explain why a job waits, or why it is on its engine.

    With --json: the daemon's whole reply; `summary` is the sentence.
    """

    def show(answer: Why) -> None:
        if flags.as_json:
            return print_json(answer)
        return stdout_console().out(text.clean(answer.summary), highlight=False)

    with flags.client() as client:
        each([job_id], client.why, show)


@click.command(
    cls=Command,
    examples=(
        "distconv attempts 1763840000000000_1",
        "distconv attempts --log 1763840000000000_1",
    ),
)
@click.argument("job_id", metavar="JOB")
@click.option("--log", is_flag=True, help="Also print the end of each attempt's log.")
@shared_flags
@pass_flags
def attempts(flags: Flags, job_id: str, log: bool) -> None:
    """Show which engines tried a job, when, and how it went.

    With --json: one attempt a line, oldest first.
    """
    with flags.client() as client:
        each([job_id], client.attempts, lambda found: show_attempts(found, flags, log=log))


def show_attempts(found: list[Attempt], flags: Flags, *, log: bool) -> None:
    """Print attempts as a table or JSON, their logs below it."""
    if flags.as_json:
        for attempt in found:
            print_json(attempt)
        return None
    console = stdout_console()
    if not found:
        return stderr_console().out("The job has no attempts yet. To see why: distconv why JOB")
    tables.print_table(console, tables.ATTEMPT_COLUMNS, map(tables.attempt_row, found))
    for attempt in found if log else ():
        print_log(attempt)
    return None


def print_log(attempt: Attempt) -> None:
    """Print the end of an attempt's log, if there is one."""
    lines = (attempt.log_tail or "").splitlines()
    console = stdout_console()
    console.out(f"\nattempt {attempt.number}: {'' if lines else 'no log'}", highlight=False)
    for line in lines:
        console.out(f"  {text.clean(line)}", highlight=False)
