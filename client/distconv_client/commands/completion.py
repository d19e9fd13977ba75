"""Print a script that completes `distconv` in a shell: the command completion."""

import click
from click.shell_completion import get_completion_class

from distconv_client.help_examples import Command
from distconv_client.shared import shared_flags

PROGRAM = "distconv"
VARIABLE = "_DISTCONV_COMPLETE"
"""The variable that click reads; it follows from the program's name."""


@click.command(
    cls=Command,
    examples=(
        "distconv completion bash",
        "distconv completion zsh",
        "distconv completion fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@shared_flags
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script for Tab completion in bash, zsh or fish.

    It completes commands, flags and their values.

    \b
    bash (4.4 or newer), in ~/.bashrc:   eval "$(distconv completion bash)"
    zsh, in ~/.zshrc, after compinit:    eval "$(distconv completion zsh)"
    fish, in ~/.config/fish/config.fish: distconv completion fish | source
    """  # noqa: D301 - \b is click's mark for lines that it must not wrap
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    click.echo(kind(context.find_root().command, {}, PROGRAM, VARIABLE).source())
