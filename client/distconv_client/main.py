"""Collect all commands under `distconv`, and print their errors in one place.

Exit codes: 0 success; 1 a job failed, or the daemon refused or cannot be reached; 2 the command
line or the configuration is wrong; 130 interrupted.
"""

import contextlib
import os
import sys
from typing import Any

import click

from distconv_client import help_examples
from distconv_client.commands.change import cancel, pause, resume, retry
from distconv_client.commands.completion import completion
from distconv_client.commands.doctor import doctor
from distconv_client.commands.engines import engines
from distconv_client.commands.look import attempts, jobs, status, why
from distconv_client.commands.submit import submit
from distconv_client.commands.top import top
from distconv_client.commands.watch import watch
from distconv_client.errors import ClientError
from distconv_client.shared import INTERRUPTED, failure, shared_flags


class Commands(help_examples.Group):
    """A group that prints errors in one or two lines, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except ClientError as error:
            raise failure(error) from error
        except KeyboardInterrupt:
            click.echo("distconv: interrupted.", err=True)
            return ctx.exit(INTERRUPTED)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=(
        "distconv submit holiday.mov --codec h265 --wait",
        "distconv jobs --status assigned",
        "distconv why 1763840000000000_1",
    ),
)
@click.version_option(package_name="distconv", prog_name="distconv")
@shared_flags
def cli() -> None:
    """Submit video for transcoding, and follow the jobs.

    The daemon's address is --server URL, else DISTCONV_SERVER, else `server` in
    ~/.config/distconv/config.toml, else http://127.0.0.1:8080. Its key is --api-key KEY,
    else DISTCONV_API_KEY, else `api_key` in that file.

    With --json every command prints JSON, one document a line, with the fields of the HTTP API.
    Exit codes: 0 success; 1 a job failed, or the daemon refused or cannot be reached; 2 the
    command line or the configuration is wrong; 130 interrupted.
    """


for command in (
    *(submit, status, jobs, watch, top, cancel, pause, resume, retry, why, attempts, engines),
    *(doctor, completion),
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; this is the distribution's entry point."""
    try:
        try:
            cli(prog_name="distconv")
        finally:
            if sys.stdout is not None:  # closed by the caller: `distconv … >&-`
                sys.stdout.flush()
    except OSError as error:
        sys.exit(_not_written(error))


def _not_written(error: OSError) -> int:
    """Report that output could not be written, as to a full disk; return the exit code.

    What is still buffered would fail again when Python exits, so it goes to /dev/null. A closed
    pipe is not reported: the reader has seen enough.
    """
    with open(os.devnull, "wb") as nowhere, contextlib.suppress(OSError):
        os.dup2(nowhere.fileno(), 1)
    if not isinstance(error, BrokenPipeError):
        what = f"{error.filename}" if error.filename else "Cannot write the output"
        # The message may go to the same full disk; then there is nowhere to report.
        with contextlib.suppress(OSError):
            click.echo(f"distconv: {what}: {error.strerror or error}.", err=True)
    return 1
