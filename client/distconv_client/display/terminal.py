"""Print to consoles that interpret no markup, and as JSON lines.

`rich` interprets square brackets as styles by default; what is printed here contains file names and
the daemon's messages, so it is never markup.
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
    """Print one value as one line of JSON on stdout, and flush it for a waiting reader."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()
