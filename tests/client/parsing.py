"""Parse command lines as click does, without running anything."""

import click

from distconv_client.shared import Flags


def parse(command: click.Command, words: list[str], parent: click.Context | None = None) -> None:
    """Parse a whole line; click raises for a wrong one."""
    name = None if parent is None else words[0]
    context = command.make_context(name, words[1:], parent=parent, obj=Flags())
    rest = [*context._protected_args, *context.args] if isinstance(command, click.Group) else []
    if rest:
        assert isinstance(command, click.Group)
        child = command.get_command(context, rest[0])
        assert child is not None, f"no command {rest[0]}"
        parse(child, rest, context)
