"""Share among commands: the flags for the daemon, its client, and loops over many IDs.

`--server`, `--api-key` and `--json` may stand before and after the command's name; the later one
wins. That is why they are not parameters of the commands: a callback stores each in the `Flags`
of the context, which the command receives instead.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from distconv_client.api import Client
from distconv_client.config import load_settings
from distconv_client.display.text import clean
from distconv_client.errors import BadInput, ClientError, Refused
from distconv_client.follow import DEFAULT_PACE, Pace

INTERRUPTED = 130
"""The exit code after Ctrl-C, as in shells."""

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


@dataclass
class Flags:
    """The values of the shared flags."""

    server: str | None = None
    api_key: str | None = None
    as_json: bool = False
    make_client: Callable[..., Client] = Client
    """Tests replace it with a client without a network."""
    pace: Pace = DEFAULT_PACE
    """Tests replace its clock."""

    def client(self) -> Client:
        """Return a client of the daemon given by flags, environment or file."""
        settings = load_settings(self.server, self.api_key)
        return self.make_client(settings.server, settings.api_key)


def remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Store the value of a shared flag, if it was given."""
    flags = context.ensure_object(Flags)
    if value:
        setattr(flags, parameter.name, value)


def shared_flags(function: F) -> F:
    """Add the flags that every command takes."""
    for decorate in (
        click.option(
            "--json",
            "as_json",
            is_flag=True,
            help="Print JSON, one document a line.",
            expose_value=False,
            callback=remember,
        ),
        click.option(
            "--api-key",
            metavar="KEY",
            help="The daemon's key [DISTCONV_API_KEY].",
            expose_value=False,
            callback=remember,
        ),
        click.option(
            "--server",
            metavar="URL",
            help="The daemon's address [DISTCONV_SERVER].",
            expose_value=False,
            callback=remember,
        ),
    ):
        function = decorate(function)
    return function


pass_flags = click.make_pass_decorator(Flags, ensure=True)


class Failure(click.ClickException):
    """An error on the command line: one or two lines on stderr, then exit code 1."""

    def __init__(self, error: ClientError) -> None:
        super().__init__(error.message)
        self.hint = error.hint

    def show(self, file: Any = None) -> None:
        """Print what was wrong and what to do next."""
        for start, line in (("distconv: ", self.message), ("          ", self.hint)):
            if line:
                click.echo(f"{start}{clean(line)}", file=file or sys.stderr)


class UsageFailure(Failure):
    """An error in the command line or the configuration: exit code 2."""

    exit_code = 2


def failure(error: ClientError) -> Failure:
    """Return `error` as an error of the command line."""
    return UsageFailure(error) if isinstance(error, BadInput) else Failure(error)


def each(job_ids: Iterable[str], call: Callable[[str], T], use: Callable[[T], None]) -> None:
    """Call the daemon for each ID and use its reply; exits 1 at the end if it refused one.

    One wrong ID does not stop the others. An unreachable daemon does: no other would succeed.
    """
    refused = False
    for job_id in job_ids:
        try:
            reply = call(job_id)
        except Refused as error:
            refused = True
            hint_text = error.hint if error.status in {401, 403} else ""
            Failure(
                type(error)(error.status, error.title, f"{job_id}: {error.detail}", hint=hint_text)
            ).show()
        else:
            use(reply)
    if refused:
        click.get_current_context().exit(1)
