"""The command that shows the whole farm on one screen, live."""

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
"""Where nobody's terminal says how wide it is."""
REDRAW_S = 1.0
"""Ages on the screen go on also while the daemon is away."""


@click.command(
    cls=Command,
    examples=(
        "distconv top",
        "distconv top --once",
        "distconv top --once --json | jq .status.queue",
    ),
)
@click.option("--once", is_flag=True, help="Print one screen and end.")
@shared_flags
@pass_flags
def top(flags: Flags, once: bool) -> None:
    """Show queue, engines and running jobs on one screen, live; q or Ctrl-C leaves.

    It looks once a second, or less often where the daemon is slow to answer. While the daemon is away
    it says so, shows what was seen last, and goes on when it is back.

    Without a terminal, or with --once, one screen is printed. With --json: one document a look, with
    `status`, `engines` and `running`; without --once until Ctrl-C. Exits 1 if the first look fails
    under --once.
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
            click.echo(err=True)  # leaving is no failure


def is_live() -> bool:
    """Tell whether a screen can be drawn and drawn again."""
    console = stdout_console()
    return sys.stdout.isatty() and console.is_terminal and not console.is_dumb_terminal


def refresh_once(watcher: FarmWatcher) -> None:
    """Look; raises what made it impossible."""
    watcher.refresh_snapshot()
    if watcher.outage is not None:
        raise watcher.outage.error


def print_snapshots(watcher: FarmWatcher, flags: Flags, *, once: bool) -> None:
    """Print a document a look; an outage is told on stderr when it begins."""
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
    """Print one screen, whole: what is piped on is not cut to a height."""
    for line in drawn(watcher, console.width if console.is_terminal else PLAIN_WIDTH, None):
        if console.is_terminal:
            console.print(line, soft_wrap=True)
        else:
            console.out(line.plain, highlight=False)


def watch(watcher: FarmWatcher, console: Console) -> None:
    """Draw the screen again and again until a key or Ctrl-C."""
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
    """What is to be seen at the moment of drawing.

    Args:
        lookout: sees it.
    """

    overflow: ClassVar[str] = "crop"

    def __init__(self, watcher: FarmWatcher) -> None:
        self._lookout = watcher

    def __rich_console__(self, console: Console, options: object) -> list[Group]:
        """Draw it in the terminal's present size; the last line stays free for the cursor."""
        lines = drawn(self._lookout, console.width, max(1, console.height - 1))
        for line in lines:
            line.no_wrap = True
        return [Group(*lines)]


def drawn(watcher: FarmWatcher, width: int, height: int | None) -> list[Text]:
    """Return the lines of the screen as of now."""
    return draw_dashboard(
        watcher.snapshot,
        server=watcher.client.server,
        width=width,
        height=height,
        now_s=watcher.clock(),
        outage=watcher.outage,
        returned_s=watcher.returned_s,
    )
