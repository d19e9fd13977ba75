"""The `distconv` command: all commands under one name, and one place where errors become words.

Exit codes: 0 it worked; 1 the job or the daemon said no; 2 the command was written wrongly;
130 interrupted.
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
    """A group that tells errors in a line or two and never shows a traceback for them."""

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
    """Submit video to be transcoded, and follow what becomes of it.

    Where the daemon is: --server URL, else DISTCONV_SERVER, else `server` in
    ~/.config/distconv/config.toml, else http://127.0.0.1:8080. The key in the same way: --api-key,
    DISTCONV_API_KEY, `api_key`.

    Every command takes --json and then prints one JSON document a line, with the fields of the
    HTTP API. Exit codes: 0 it worked; 1 the job or the daemon said no, or can not be reached;
    2 the command was written wrongly; 130 interrupted.
    """


for command in (
    *(submit, status, jobs, watch, top, cancel, pause, resume, retry, why, attempts, engines),
    *(doctor, completion),
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; the entry point of the distribution."""
    try:
        try:
            cli(prog_name="distconv")
        finally:
            if sys.stdout is not None:  # closed by the caller: `distconv … >&-`
                sys.stdout.flush()
    except OSError as error:
        sys.exit(_not_written(error))


def _not_written(error: OSError) -> int:
    """Tell that output could not be written, as to a full disk; return the exit code.

    What is still to be flushed would fail once more when Python ends, so it goes nowhere. Whoever
    closed the pipe has read enough, and is not told.
    """
    with open(os.devnull, "wb") as nowhere, contextlib.suppress(OSError):
        os.dup2(nowhere.fileno(), 1)
    if not isinstance(error, BrokenPipeError):
        what = f"{error.filename}" if error.filename else "Can not write the output"
        # The message may go to the same full disk: then nobody can be told.
        with contextlib.suppress(OSError):
            click.echo(f"distconv: {what}: {error.strerror or error}.", err=True)
    return 1
