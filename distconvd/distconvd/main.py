"""Run the command `distconvd`: the daemon, or a subcommand on its configuration or store."""

import argparse
import gc
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Sequence

import trio

from distconvd import __version__
from distconvd.api.starting import starting_app
from distconvd.commands import keys, transfer
from distconvd.commands.audit import command as audit_command
from distconvd.commands.check import check
from distconvd.commands.listening import Listening, open_all
from distconvd.commands.migrate import migrate
from distconvd.config import Config, Loaded, describe, load_config
from distconvd.daemon import Parts, assemble, check_choices, edge_limits, run_behind
from distconvd.edge.server import Server, serve
from distconvd.errors import ConfigError, StoreError
from distconvd.host.logs import LEVELS, set_up_logs
from distconvd.host.notify import Notifier
from distconvd.plugin_host.loading import Context, Plugins
from distconvd.plugin_host.services import plain_refusals
from distconvd.store import Store

EXIT_FAILED = 1
EXIT_CONFIG = 78
LAST_RESORT_S = 3.0
"""The process ends within this time after a second signal, or after a commit is given up."""

_EPILOG = """\
examples:
  distconvd                                  serve this machine only, no key, port 8080
  distconvd --api-key SECRET                 serve the network, with a key
  DISTCONV_API_KEY=SECRET distconvd --port 9000 --state-file /var/lib/distconv/state.json
  distconvd --config /etc/distconv/distconvd.toml --log-format json
  distconvd --set dispatch.lease_s=30        set a setting in a table of the file
  distconvd config                           show the merged settings and where each is from
  distconvd check                            check whether it would start, part by part
  distconvd plugins                          list the plugins and their hooks
  distconvd keys add --key-file keys.json --name anna --role submit    print a new key, once
  distconvd migrate json:state.json spool:state.d     copy a store into an empty one
  distconvd audit --state-file state.json    check a store, or a daemon with --url, for faults
  distconvd export --state-file state.json > FILE     all records as NDJSON
  distconvd import --state-file new.json < FILE       into an empty store

Flags override environment variables (DISTCONV_PORT, …), these the file, and the file the defaults.
Without a key only loopback is served; a public address without a key is refused (exit 78).
SIGTERM drains and exits 0; a second one ends immediately. SIGHUP reads the key file again.
Docs: docs/user_guide.md
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(
        prog="distconvd",
        description="The DistConv dispatch server: takes transcoding jobs, keeps them safe, and"
        " gives each to the best engine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"distconvd {__version__}")
    top.add_argument("--config", metavar="FILE", help="a TOML file with settings")
    top.add_argument("--host", metavar="ADDRESS", help="address to listen on")
    top.add_argument("--port", type=int, metavar="N", help="port to listen on (default 8080)")
    top.add_argument(
        "--listen", metavar="PLACE", action="append",
        help="HOST:PORT, unix:/PATH or systemd, instead of --host and --port; repeatable",
    )  # fmt: skip
    top.add_argument("--tls-certificate", metavar="FILE", help="speak TLS with this PEM chain")
    top.add_argument("--tls-key", metavar="FILE", help="its private key, if it is in another file")
    top.add_argument(
        "--tls-client-ca", metavar="FILE", help="clients need a certificate of this CA"
    )
    top.add_argument("--api-key", metavar="KEY", help="the key that callers must send")
    top.add_argument("--api-key-file", metavar="FILE", help="a file with that key")
    top.add_argument("--key-file", metavar="FILE", help="many keys with roles; see `keys --help`")
    top.add_argument("--state-file", metavar="PATH", help="where state is kept")
    top.add_argument("--store", metavar="NAME", help="json (default), spool, memory, or a plugin's")
    top.add_argument("--policy", metavar="NAME", help="scheduling policy (default size-aware)")
    top.add_argument(
        "--auth", metavar="NAME", help="authenticator (default: chosen by the key flags)"
    )
    top.add_argument(
        "--plugin", metavar="FILE_OR_MODULE", action="append", dest="plugins", help="load a plugin"
    )
    top.add_argument("--media-dir", metavar="DIR", help="where the media store keeps results")
    top.add_argument("--spool-dir", metavar="DIR", help="take jobs from files dropped in DIR")
    top.add_argument(
        "--log-level", metavar="LEVEL", type=str.upper, choices=sorted(LEVELS),
        help="DEBUG, INFO, WARN or ERROR",
    )  # fmt: skip
    top.add_argument("--log-format", choices=["text", "json"], help="one line per event in both")
    top.add_argument(
        "--set", metavar="KEY=VALUE", action="append", dest="sets", help="any setting by its key"
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("config", help="show the merged settings with the origin of each")
    commands.add_parser("check", help="check whether the daemon would start, without starting it")
    commands.add_parser("plugins", help="list the loaded plugins and their hooks")
    copying = commands.add_parser("migrate", help="copy a store into an empty one")
    copying.add_argument("source", metavar="FROM", help="STORE:PATH, for example json:state.json")
    copying.add_argument("target", metavar="TO", help="STORE:PATH, for example spool:state.d")
    keys.add_to(commands)
    audit_command.add_to(commands)
    transfer.add_to(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits 0, 1 (failed), 2 (usage) or 78 (configuration)."""
    given = parser().parse_args(arguments)
    known = {"config", *Config.__struct_fields__}
    flags = {key: value for key, value in vars(given).items() if key in known}
    try:
        loaded = load_config(flags, os.environ, given.sets)
        set_up_logs(loaded.config.log_level, loaded.config.log_format)
        if given.command == "config":
            _show_config(loaded)
        elif given.command == "check":
            _check(loaded.config)
        elif given.command == "plugins":
            _show_plugins(loaded.config)
        elif given.command == "keys":
            keys.run(given, loaded.config)
        elif given.command == "audit":
            audit_command.run(given, loaded.config)
        elif given.command in ("export", "import"):
            transfer.run(given, loaded.config)
        elif given.command == "migrate":
            trio.run(_migrate, loaded.config, given.source, given.target)
        else:
            with plain_refusals():
                trio.run(_serve, loaded.config)
    except ConfigError as error:
        print(f"distconvd: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except StoreError as error:
        print(f"distconvd: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)


async def _serve(config: Config) -> None:
    """Run the daemon until a signal; it listens from the beginning, and answers that it is starting."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
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
            if parts.ledger.commit_takes_s() > 0:
                parts.abandon()
            else:
                parts.last_resort()
            scope.cancel()
            return
        manager.stopping(parts.config.drain_s)
        stop.set()


def _end_soon() -> None:
    """End the process after `LAST_RESORT_S`, if it has not ended by itself: a store's hanging thread
    cannot be cancelled. Nothing acknowledged depends on a clean end."""
    timer = threading.Timer(LAST_RESORT_S, os._exit, (EXIT_FAILED,))
    timer.daemon = True
    timer.start()


def _check(config: Config) -> None:
    """Print a line for each part; exits 78 when one of them fails."""
    found = trio.run(check, config)
    for name, fine, detail in found:
        print(f"{'ok  ' if fine else 'fail'}  {name}: {detail}")
    if not all(fine for _, fine, _ in found):
        sys.exit(EXIT_CONFIG)


def _show_config(loaded: Loaded) -> None:
    plugins = Plugins(loaded.config.plugins)
    rows = describe(loaded, plugins.settings_types())
    key_width = max(len(key) for key, _, _ in rows)
    for key, value, origin in rows:
        print(f"{key:{key_width}} = {value}  # {origin}")
    for name in sorted(loaded.config.plugin.keys() - plugins.settings_types().keys()):
        print(f"# no loaded plugin declares [plugin.{name}]: is the name right?")


def _show_plugins(config: Config) -> None:
    for plugin in Plugins(config.plugins).listing():
        version = f" {plugin.version}" if plugin.version else ""
        print(f"{plugin.name}{version} ({plugin.origin})")
        for hook in plugin.hooks:
            print(f"  {hook}")


async def _migrate(config: Config, source: str, target: str) -> None:
    plugins = Plugins(config.plugins)
    registrar = plugins.collect("distconvd_register_stores", "store")
    stores: list[Store] = []
    for place in (source, target, target):  # the target again, to read it back
        name, colon, path = place.partition(":")
        if not colon or not path:
            raise ConfigError(
                f"{place!r} is not a store: expected STORE:PATH, such as json:state.json",
                exit_code=2,
            )
        context = Context(load_config({"state_file": path}, {}).config)
        stores.append(registrar.pick(name)(context))
    report = await migrate(*stores)
    print(report)
