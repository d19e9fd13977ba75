"""Where output goes: two consoles that interpret no markup, and JSON lines.

`rich` reads square brackets as styles unless it is told not to; what is printed here comes from
files' names and daemons' messages, so it never is markup.
"""

import sys

import msgspec
from rich.console import Console


def stdout_console() -> Console:
    """Return the console for results."""
    return Console(markup=False, highlight=False, emoji=False)


def stderr_console() -> Console:
    """Return the console for progress and errors."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def print_json(value: object) -> None:
    """Print one value as one line of JSON on stdout, at once: a reader may be waiting for it."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()
