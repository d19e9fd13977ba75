"""Submit files and URLs as jobs, and follow them with --wait: the command submit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from distconv_client.api import Client
from distconv_client.commands.look import label
from distconv_client.display import tables, text
from distconv_client.display.terminal import print_json, stderr_console, stdout_console
from distconv_client.errors import Refused
from distconv_client.help_examples import Command
from distconv_client.options import transcode_flags, transcode_options, with_flag_names
from distconv_client.shared import Flags, pass_flags, shared_flags
from distconv_client.sources import output_for, submission_for
from distconv_client.spooling import (
    drop_all,
    has_succeeded,
    job_of,
    wait_for_drops,
    why_rejected,
)
from distconv_client.waiting import wait_for
from distconv_spool import Drop, Outcome
from distconvd.model import Job, JobStatus, Submission

RESULT_COLUMNS = ("JOB", "STATUS", "CODEC", "SAVED", "OUTPUT")


@click.command(
    cls=Command,
    examples=(
        "distconv submit holiday.mov --codec h265 --wait",
        "distconv submit *.mp4 --codec av1 --preset 8 --output /srv/av1/ --label show=bunny",
        "distconv submit https://example.org/in.mkv --codec vp9 --job-size 420 --priority high",
        "distconv submit big.mov --codec h264 --max-height 720 --crf 23 --requires gpu --sha256",
        "distconv submit night.mov --codec h264 --spool /var/spool/distconv",
        "distconv submit --json a.mp4 b.mp4 --codec h264 | jq -r .job_id",
    ),
)
@click.argument("sources", metavar="FILE_OR_URL...", nargs=-1, required=True)
@click.option("--codec", "-c", required=True, metavar="NAME", help="h264, h265, vp8, vp9, av1, …")
@click.option(
    "--output", "-o", metavar="URL_OR_DIR", help="Where results go; default: the engine's setting."
)
@click.option("--wait", "-w", is_flag=True, help="Show progress until all jobs have ended.")
@click.option(
    "--priority",
    type=click.Choice(list(text.PRIORITIES)),
    default="normal",
    show_default=True,
    help="Higher goes first.",
)
@click.option(
    "--label", "labels", type=label, multiple=True, metavar="NAME=VALUE", help="Label; repeatable."
)
@click.option(
    "--requires", multiple=True, metavar="TAG", help="Only engines with this tag; repeatable."
)
@click.option(
    "--max-retries",
    type=click.IntRange(0, 1000),
    default=3,
    show_default=True,
    metavar="N",
    help="Retries after a failure; a transient one, such as an unreachable source, is retried for a"
    " long time even with 0.",
)
@click.option("--sha256", is_flag=True, help="Send each file's checksum, for the engine to check.")
@click.option(
    "--job-size", type=click.FloatRange(min=0), metavar="MB", help="Size of a URL's file, if known."
)
@click.option(
    "--spool",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Drop the jobs into this spool instead; needs no network, and the daemon may be down.",
)
@transcode_flags
@shared_flags
@pass_flags
def submit(
    flags: Flags, /, sources: tuple[str, ...], wait: bool, spool: Path | None, **given: Any
) -> None:
    """Submit files or URLs for transcoding, one job each.

    A file is submitted as a file:// URL: the engine must see it under the same path. All files are
    checked before the first is submitted.

    With --spool DIR nothing is sent: each job becomes a file in the spool, durable immediately.
    The file's name is printed, and with --wait its outcome.

    With --json: each job's document, one a line, in the order given; with --wait, when all have
    ended. Exits 1 under --wait if a job did not complete.
    """
    submissions = list(submissions_for(sources, given))
    if spool is not None:
        submit_by_spool(spool, submissions, as_json=flags.as_json, wait=wait)
        return
    with flags.client() as client:
        jobs = list(submitted(client, submissions, as_json=flags.as_json, wait=wait))
        if not wait:
            return
        ended = wait_for(client, jobs, pace=flags.pace)
    show_results(list(ended.values()), flags)
    if any(job.status is not JobStatus.COMPLETED for job in ended.values()):
        click.get_current_context().exit(1)


def submit_by_spool(
    spool: Path, submissions: list[Submission], *, as_json: bool, wait: bool
) -> None:
    """Drop the jobs, and with `wait` print each outcome; exits 1 if one did not complete."""
    drops: list[Drop] = []
    for drop, submission in zip(drop_all(spool, submissions), submissions, strict=True):
        drops.append(drop)
        if as_json and not wait:
            print_json({"drop": drop.name, "source_url": submission.source_url})
        else:
            line = f"{drop.name}  {text.place(submission.source_url)}"
            (stderr_console() if as_json else stdout_console()).out(line, highlight=False)
    if not wait:
        return
    outcomes = list(wait_for_drops(spool, drops))
    for outcome, drop in zip(outcomes, drops, strict=True):
        print_outcome(outcome, drop, as_json=as_json)
    if not all(map(has_succeeded, outcomes)):
        click.get_current_context().exit(1)


def print_outcome(outcome: Outcome, drop: Drop, *, as_json: bool) -> None:
    """Print the outcome of one drop."""
    job = job_of(outcome)
    if as_json:
        print_json(outcome.problem if job is None else job)
    elif job is None:
        line = f"{drop.name}  rejected: {text.clean(why_rejected(outcome))}"
        stdout_console().out(line, highlight=False)
    else:
        tables.print_table(stdout_console(), RESULT_COLUMNS, [result_row(job)])


def submissions_for(sources: tuple[str, ...], given: dict[str, Any]) -> Iterator[Submission]:
    """Iterate over the submissions; raises `BadInput` for an unusable source."""
    target = given["output"]
    fields = {
        "max_retries": given["max_retries"],
        "priority": text.PRIORITIES[given["priority"]],
        "labels": dict(given["labels"]),
        "requires": list(given["requires"]),
        "options": transcode_options(given),
        "output": None if target is None else output_for(target, sources=len(sources)),
    }
    for source in sources:
        yield submission_for(
            source,
            given["codec"],
            size_mb=given["job_size"],
            with_sha256=given["sha256"],
            **fields,
        )


def submitted(
    client: Client, submissions: list[Submission], *, as_json: bool, wait: bool
) -> Iterator[Job]:
    """Submit one after the other; each job is printed immediately, to be known after a Ctrl-C.

    It is printed on stderr if JSON follows on stdout when the jobs have ended.
    """
    for submission in submissions:
        try:
            job = client.submit(submission)
        except Refused as error:
            raise with_flag_names(error) from error
        if as_json and not wait:
            print_json(job)
        else:
            print_job(job, stderr_console() if as_json else stdout_console())
        yield job


def print_job(job: Job, console: Console) -> None:
    """Print the job's ID, codec and source."""
    line = f"{text.clean(job.job_id)}  {text.clean(job.target_codec)}  {text.place(job.source_url)}"
    console.out(line, highlight=False)


def show_results(jobs: list[Job], flags: Flags) -> None:
    """Print the jobs that have ended."""
    if flags.as_json:
        for job in jobs:
            print_json(job)
        return
    tables.print_table(stdout_console(), RESULT_COLUMNS, map(result_row, jobs))


def result_row(job: Job) -> tuple[str, ...]:
    """Return a job that has ended as a row of `RESULT_COLUMNS`."""
    found = job.result
    before = (found and found.source_size_bytes) or job.job_size * 1e6
    return (
        text.clean(job.job_id),
        job.status,
        text.clean(job.target_codec),
        text.saved(before, found.size_bytes if found else None),
        text.progress(job),
    )
