"""Define commands whose help shows examples.

The examples are data and not part of a docstring, so that a test can parse every one.
"""

from typing import Any

import click


class Command(click.Command):
    """A command with examples.

    Args:
        examples: command lines as a person would type them.
    """

    def __init__(self, *args: Any, examples: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help text, then the examples."""
        super().format_help_text(ctx, formatter)
        write_examples(self.examples, formatter)


class Group(click.Group):
    """A group of commands, in the order in which they were added, with examples.

    Args:
        examples: command lines as a person would type them.
    """

    command_class = Command

    def __init__(self, *args: Any, examples: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names in the order of their definition."""
        return list(self.commands)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help text, then the examples."""
        super().format_help_text(ctx, formatter)
        write_examples(self.examples, formatter)


def write_examples(examples: tuple[str, ...], formatter: click.HelpFormatter) -> None:
    """Write examples without wrapping: a wrapped one cannot be copied."""
    with formatter.section("Examples"):
        for example in examples:
            formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
