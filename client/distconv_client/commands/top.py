"""Show the whole farm on one live screen: the command top."""

import sys
from typing import ClassVar

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from distconv_client.cluster import FarmWatcher
from distconv_client.display.dashboard import draw_dashboard
from distconv_client.display.keyboard import raw_keys
from distconv_client.display.terminal import print_json, stdout_console
from distconv_client.help_examples import Command
from distconv_client.shared import Flags, pass_flags, shared_flags

PLAIN_WIDTH = 120
"""The width without a terminal."""
REDRAW_S = 1.0
"""Ages on the screen advance even while the daemon is unavailable."""


@click.command(
    cls=Command,
    examples=(
        "distconv top",
        "distconv top --once",
        "distconv top --once --json | jq .status.queue",
    ),
)
@click.option("--once", is_flag=True, help="Print one screen and exit.")
@shared_flags
@pass_flags
def top(flags: Flags, once: bool) -> None:
    """Show queue, engines and running jobs on one live screen.

    Press q or Ctrl-C to quit. The screen is refreshed once a second, or less often if the daemon is
    slow to answer. While the daemon is unavailable, the last known state is shown.

    Without a terminal, or with --once, one screen is printed. With --json: one document for each
    refresh, with `status`, `engines` and `running`, until Ctrl-C or, with --once, only one. Exits
    1 if the first refresh fails, except on the live screen, which tries again.
    """
    with flags.client() as client:
        watcher = FarmWatcher(client)
        try:
            if flags.as_json:
                print_snapshots(watcher, flags, once=once)
            elif once or not is_live():
                refresh_once(watcher)
                print_dashboard(watcher, stdout_console())
            else:
                watch(watcher, stdout_console())
        except KeyboardInterrupt:
            click.echo(err=True)  # quitting is not a failure


def is_live() -> bool:
    """Whether the terminal can redraw a screen."""
    console = stdout_console()
    return sys.stdout.isatty() and console.is_terminal and not console.is_dumb_terminal


def refresh_once(watcher: FarmWatcher) -> None:
    """Refresh the snapshot; raises the error of an outage."""
    watcher.refresh_snapshot()
    if watcher.outage is not None:
        raise watcher.outage.error


def print_snapshots(watcher: FarmWatcher, flags: Flags, *, once: bool) -> None:
    """Print one document a refresh; an outage is reported on stderr when it begins."""
    refresh_once(watcher)
    while True:
        if watcher.outage is None:
            print_json(watcher.snapshot)
        if once:
            return
        was_unreachable = watcher.outage is not None
        flags.pace.sleep(watcher.next_in_s)
        watcher.refresh_snapshot()
        if watcher.outage is not None and not was_unreachable:
            click.echo(f"distconv: {watcher.outage.error.message} Trying again.", err=True)


def print_dashboard(watcher: FarmWatcher, console: Console) -> None:
    """Print one screen in full height: output to a pipe is never cut."""
    for line in drawn(watcher, console.width if console.is_terminal else PLAIN_WIDTH, None):
        if console.is_terminal:
            console.print(line, soft_wrap=True)
        else:
            console.out(line.plain, highlight=False)


def watch(watcher: FarmWatcher, console: Console) -> None:
    """Redraw the screen until a key or Ctrl-C is pressed."""
    view = Live(Screen(watcher), console=console, screen=True, auto_refresh=False)
    with raw_keys() as wait, view:
        due_in_s = 0.0
        while True:
            if due_in_s <= 0:
                watcher.refresh_snapshot(console.height)
                due_in_s = watcher.next_in_s
            view.refresh()
            pause_s = min(REDRAW_S, due_in_s)
            if wait(pause_s):
                return
            due_in_s -= pause_s


class Screen:
    """The farm, as known at the moment of drawing.

    Args:
        watcher: provides the snapshot.
    """

    overflow: ClassVar[str] = "crop"

    def __init__(self, watcher: FarmWatcher) -> None:
        self._watcher = watcher

    def __rich_console__(self, console: Console, options: object) -> list[Group]:
        """Draw for the terminal's present size; the last line stays free for the cursor."""
        lines = drawn(self._watcher, console.width, max(1, console.height - 1))
        for line in lines:
            line.no_wrap = True
        return [Group(*lines)]


def drawn(watcher: FarmWatcher, width: int, height: int | None) -> list[Text]:
    """Return the present lines of the screen."""
    return draw_dashboard(
        watcher.snapshot,
        server=watcher.client.server,
        width=width,
        height=height,
        now_s=watcher.clock(),
        outage=watcher.outage,
        returned_s=watcher.returned_s,
    )
