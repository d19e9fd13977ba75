"""Run the daemon until a signal ends it: `distconvd` without a subcommand."""

# ruff: noqa: T201 - a command's output is its job

import gc
import os
import signal
import threading
from collections.abc import AsyncIterator
from types import FrameType

import trio

from distconvd import __version__
from distconvd.api.starting import starting_app
from distconvd.commands.listening import Listening, open_all
from distconvd.config import Config
from distconvd.daemon import Parts, assemble, check_choices, edge_limits, run_behind
from distconvd.edge.server import Server, serve
from distconvd.host.notify import Notifier
from distconvd.plugin_host.loading import Plugins
from distconvd.plugin_host.services import plain_refusals

LAST_RESORT_S = 3.0
"""The process ends within this time after a second signal, or after a commit is given up."""
_EXIT_FAILED = 1


def run(config: Config) -> None:
    """Run the daemon; raises `ConfigError` or `StoreError`."""
    with plain_refusals():
        trio.run(_serve, config)


async def _serve(config: Config) -> None:
    """Run the daemon until a signal; it listens from the beginning, and answers that it is starting."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        _end_at_the_second_signal()
        plugins = Plugins(config.plugins)
        check_choices(config, plugins)
        opened = await open_all(config)
        async with trio.open_nursery() as front:
            server: Server = await front.start(
                serve, opened.listeners, starting_app(), edge_limits(config)
            )
            await _serve_behind(config, plugins, opened, server, signals)
            front.cancel_scope.cancel()


async def _serve_behind(
    config: Config,
    plugins: Plugins,
    opened: Listening,
    server: Server,
    signals: AsyncIterator[int],
) -> None:
    # Loading a million jobs makes millions of objects that all stay alive: garbage collection would
    # find nothing, now or in any later run.
    gc.disable()
    parts = await assemble(config, plugins)
    parts.last_resort = _end_soon
    gc.freeze()
    gc.enable()
    if opened.tls is not None:
        parts.reloads.append(("tls", opened.tls.reload))
    stop = trio.Event()
    manager = Notifier(os.environ)
    async with trio.open_nursery() as watch:
        watch.start_soon(_heed_signals, signals, stop, parts, manager, watch.cancel_scope)
        async with trio.open_nursery() as nursery:
            await nursery.start(run_behind, parts, server, stop)
            _announce(opened)
            manager.ready()
            watch.start_soon(manager.watch)
        watch.cancel_scope.cancel()


def _announce(opened: Listening) -> None:
    """Print where to reach the daemon; scripts wait for this line."""
    print(f"distconvd {__version__} ready on {', '.join(opened.urls)}", flush=True)


async def _heed_signals(
    signals: AsyncIterator[int],
    stop: trio.Event,
    parts: Parts,
    manager: Notifier,
    scope: trio.CancelScope,
) -> None:
    """Reload on SIGHUP, drain on the first other signal, end immediately on the second."""
    async for number in signals:
        if number == signal.SIGHUP:
            manager.reloading()
            parts.reload()
            manager.ready()
            continue
        if stop.is_set():
            if parts.ledger.commit_watch.running_s > 0:
                parts.abandon()
            else:
                parts.last_resort()
            scope.cancel()
            return
        manager.stopping(parts.config.drain_s)
        stop.set()


def _end_at_the_second_signal() -> None:
    """Let a second SIGTERM or SIGINT end the process even while a plugin loops and no task can run.

    Python calls these handlers between two steps of whatever runs. A plugin that loops inside C code
    without giving up the interpreter is out of reach; only SIGKILL ends that.
    """
    received = 0

    def count(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received == 2:
            _end_soon()
        handler = handlers[signal.Signals(number)]
        assert callable(handler)
        handler(number, frame)

    ending: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)
    handlers = {number: signal.getsignal(number) for number in ending}
    for number in handlers:
        signal.signal(number, count)  # trio restores what was there before it


def _end_soon() -> None:
    """End the process after `LAST_RESORT_S`, if it has not ended by itself: a store's hanging thread
    cannot be cancelled. Nothing acknowledged depends on a clean end."""
    timer = threading.Timer(LAST_RESORT_S, os._exit, (_EXIT_FAILED,))
    timer.daemon = True
    timer.start()
