"""Check part by part whether the daemon would start, without a start (`distconvd check`).

Nothing is left behind, even if root runs it: the store is opened on a `DiskView`, which writes nothing,
since a store that opens recovers what a crash left, and files made by root would shut the daemon out. The
addresses are bound and released. So a running daemon is reported: it has the store and the addresses.
"""

# ruff: noqa: T201 - a command's output is its job

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import trio

from distconvd.auth_keys.key_file import read_keys
from distconvd.commands.counts import count
from distconvd.commands.listening import load_tls, open_all
from distconvd.commands.open_read_only import collect_damage, damaged
from distconvd.commands.read_only_disk import DiskView
from distconvd.config import Config
from distconvd.daemon import assemble, check_apart
from distconvd.edge.bind_address import ListenAddress
from distconvd.errors import ConfigError, StoreError
from distconvd.plugin_host.loading import Context, Plugins, build_checked
from distconvd.store import Change, Snapshot, Store

EXIT_CONFIG = 78
CheckResult = tuple[str, bool, str]
"""The name of the part, whether it is fine, and what was found or what to do."""


def run(config: Config) -> None:
    """Print a line for each part; exits 78 when one of them fails."""
    found = trio.run(check, config)
    for name, fine, detail in found:
        print(f"{'ok  ' if fine else 'fail'}  {name}: {detail}")
    if not all(fine for _, fine, _ in found):
        sys.exit(EXIT_CONFIG)


async def check(config: Config) -> list[CheckResult]:
    """Try every part; the configuration itself has been read already."""
    found = [("configuration", True, "read")]
    services: list[tuple[str, object]] = []
    parts: list[tuple[str, Callable[[Config], Awaitable[str]]]] = [
        ("plugins", _plugins),
        ("settings", _settings),
        ("policy", _policy),
        ("keys", _keys),
        ("auth", _auth),
        ("tls", _tls),
        ("store", partial(_store, services)),
        ("services", partial(_services, services)),
        ("listen", _listen),
    ]
    for name, try_it in parts:
        try:
            found.append((name, True, await try_it(config)))
        except (ConfigError, StoreError) as error:
            detail = str(error)
            first = next((part for part, fine, t in found if not fine and t == detail), None)
            found.append((name, False, detail if first is None else f"see {first}"))
    return found


async def _plugins(config: Config) -> str:
    return f"{len(Plugins(config.plugins).listing())} loaded"


async def _settings(config: Config) -> str:
    context, tables = Context(config), Plugins(config.plugins).settings_types()
    for name, kind in tables.items():
        context.settings(name, kind)
    return f"the settings of {count(len(tables), 'plugins')} are valid"


async def _policy(config: Config) -> str:
    registered_factories = Plugins(config.plugins).collect("distconvd_register_policies", "policy")
    Context(config, registered_factories).policy(config.policy)
    return config.policy


async def _auth(config: Config) -> str:
    name = config.authenticator
    registered_factories = Plugins(config.plugins).collect(
        "distconvd_register_authenticators", "authenticator"
    )
    build_checked(
        "authenticator",
        name,
        registered_factories.pick(name),
        Context(config),
        owner=registered_factories.owner(name),
    )
    return name


async def _keys(config: Config) -> str:
    check_apart(config)
    if config.key_file is not None:
        return f"{count(len(read_keys(Path(config.key_file))), 'keys')} in {config.key_file}"
    return "one key" if config.api_key is not None else f"none (auth {config.authenticator})"


async def _tls(config: Config) -> str:
    return "off" if load_tls(config) is None else "certificate and key match"


async def _store(services: list[tuple[str, object]], config: Config) -> str:
    """Make every part that a start makes from the stored records, but run none.

    The services that were made are appended to `services`.
    """
    context = Context(config, disk=DiskView())
    registrar = Plugins(config.plugins).collect("distconvd_register_stores", "store")
    store: Store = build_checked(
        "store",
        config.store,
        registrar.pick(config.store),
        context,
        owner=registrar.owner(config.store),
    )
    is_opened = context.disk_was_taken
    if is_opened:
        _check_writable(context.state_file)
    with collect_damage() as damage:
        parts = await assemble(
            config, Plugins(config.plugins), store=store if is_opened else _Unopened()
        )
    await parts.store.aclose()
    services += parts.services
    if damage:
        raise damaged(damage)
    if not is_opened:
        return f"{config.store}: not opened, as that might change it"
    jobs = count(len(parts.dispatcher.state.jobs), "jobs")
    return f"{config.store} at {config.state_file}: {jobs}"


async def _services(services: list[tuple[str, object]], config: Config) -> str:
    """Call `check` of each service that has it: it raises if the service would not start."""
    for name, service in services:
        check_service = getattr(service, "check", None)
        try:
            if callable(check_service):
                await trio.to_thread.run_sync(check_service)
        except (ConfigError, StoreError):
            raise
        except Exception as error:
            raise ConfigError(f"the service {name!r} cannot be checked: {error!r}") from error
    return ", ".join(name for name, _ in services) or "none"


def _check_writable(path: Path) -> None:
    """Raise `StoreError` if this user could not make files at a path."""
    path = path.absolute()
    folder = path if path.is_dir() else path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(
            f"user {os.geteuid()} cannot write to {folder}; run the check as the daemon's user, and"
            " chown the folder to that user"
        )


class _Unopened:
    """Stands in for a store that is not opened."""

    async def load(self) -> Snapshot:
        """Return an empty snapshot."""
        await trio.lowlevel.checkpoint()
        return Snapshot({}, {}, {}, {})

    async def commit(self, changes: Sequence[Change]) -> None:
        """Drop the changes."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Do nothing."""
        await trio.lowlevel.checkpoint()


async def _listen(config: Config) -> str:
    """Open every listen address except systemd's sockets, which only the daemon itself is passed."""
    named = [address for address in config.listen_addresses if not address.inherited]
    detail = (
        ["the sockets that systemd passes at the start (not checked)"]
        if len(named) < len(config.listen_addresses)
        else []
    )
    if named:
        opened = await open_all(msgspec.structs.replace(config, listen=[str(p) for p in named]), {})
        await opened.aclose()
        _remove_sockets(named)
        detail = [*opened.urls, *detail]
    return ", ".join(detail)


def _remove_sockets(listen_addresses: Sequence[ListenAddress]) -> None:
    """Remove the unix sockets that have just been made; a daemon would replace them anyway."""
    for address in listen_addresses:
        if address.path:
            Path(address.path).unlink(missing_ok=True)
