"""Open the configured listeners: TCP (with TLS), unix sockets, and systemd's sockets."""

import os
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

import trio

from distconvd.config import Config
from distconvd.edge.bind_address import ListenAddress
from distconvd.edge.listeners import (
    inherited_listeners,
    name_of,
    open_listeners,
    open_unix_listener,
    reaches_this_machine_only,
)
from distconvd.edge.server import Listener
from distconvd.edge.tls import TlsFiles, TlsListener
from distconvd.errors import ConfigError


@dataclass
class Listening:
    """Open listeners, and the URLs at which people reach them."""

    listeners: list[Listener]
    urls: list[str]
    tls: TlsFiles | None

    async def aclose(self) -> None:
        """Close them all."""
        for listener in self.listeners:
            await trio.aclose_forcefully(listener)


async def open_all(config: Config, environ: MutableMapping[str, str] = os.environ) -> Listening:
    """Open every configured listener, or, if none is configured, the sockets that systemd passes.

    Raises `ConfigError` that says what to do: exit code 1 for an address that is not available, 78 for
    TLS files that cannot be used and for a socket that is public without a key.
    """
    tls = load_tls(config)
    opened = Listening([], [], tls)
    try:
        passed = inherited_listeners(environ)
        listen_addresses = (
            [ListenAddress(inherited=True)]
            if passed and not config.listen
            else config.listen_addresses
        )
        for address in listen_addresses:
            await _open(address, passed, opened, config)
    except OSError as error:
        await opened.aclose()
        raise ConfigError(str(error.strerror or error), exit_code=1) from error
    except BaseException:
        await opened.aclose()
        raise
    return opened


def load_tls(config: Config) -> TlsFiles | None:
    """Return the configured TLS files, if any; raises `ConfigError`."""
    if config.tls_certificate is None:
        return None
    try:
        return TlsFiles(
            Path(config.tls_certificate),
            Path(config.tls_key) if config.tls_key else None,
            Path(config.tls_client_ca) if config.tls_client_ca else None,
        )
    except OSError as error:
        raise ConfigError(f"TLS: {error.strerror or error}") from error


async def _open(
    address: ListenAddress, passed: list[trio.SocketListener], opened: Listening, config: Config
) -> None:
    if address.inherited:
        if not passed:
            raise ConfigError(
                "listen names systemd, but systemd has passed no socket (LISTEN_FDS); start the daemon"
                " by its socket unit, or take systemd out of listen"
            )
        for listener in passed:
            _check_reach(listener, config)
            _add(listener, name_of(listener.socket.getsockname()), opened)
        passed.clear()
    elif address.path:
        _add(await open_unix_listener(address.path), str(address), opened)
    else:
        found = await open_listeners(address.host, address.port)
        port = found[0].socket.getsockname()[1]  # with port 0 the system has chosen one
        for listener in found:
            _add(listener, str(address._replace(port=port)), opened)


def _add(listener: trio.SocketListener, name: str, opened: Listening) -> None:
    is_tcp = isinstance(listener.socket.getsockname(), tuple)
    with_tls = is_tcp and opened.tls is not None
    if is_tcp:
        url = f"{'https' if with_tls else 'http'}://{name}"
    else:
        url = name if name.startswith("unix:") else f"unix:{name}"
    if url not in opened.urls:
        opened.urls.append(url)
    if with_tls and opened.tls is not None:
        opened.listeners.append(TlsListener(listener, opened.tls))
    else:
        opened.listeners.append(listener)


def _check_reach(listener: trio.SocketListener, config: Config) -> None:
    """Refuse a public socket without a key; its address was chosen by systemd, not by us."""
    if config.authenticator == "none" and not reaches_this_machine_only(listener):
        name = name_of(listener.socket.getsockname())
        raise ConfigError(
            f"refusing to listen on {name} (from systemd) without a key: anybody could submit and"
            " take jobs. Give --api-key KEY (or DISTCONV_API_KEY) or --key-file FILE."
        )
