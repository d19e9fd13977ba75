"""The command that prints what makes a shell complete `distconv` on Tab."""

import click
from click.shell_completion import get_completion_class

from distconv_client.teaching import Command

PROGRAM = "distconv"
VARIABLE = "_DISTCONV_COMPLETE"
"""What click's entry point looks for; it follows from the program's name."""


@click.command(
    cls=Command,
    examples=(
        'eval "$(distconv completion bash)"     # in ~/.bashrc',
        'eval "$(distconv completion zsh)"      # in ~/.zshrc, behind compinit',
        "distconv completion fish > ~/.config/fish/completions/distconv.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script for your shell that completes commands, flags and their values on Tab.

    bash must be 4.4 or newer.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    click.echo(kind(context.find_root().command, {}, PROGRAM, VARIABLE).source())
