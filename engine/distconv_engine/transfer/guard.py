"""Make the HTTP client of sources and outputs, which checks each host.

The check is made where the connection is: after the name is resolved, on the very address that is then
connected to, and again for each redirect. A check before the request could be deceived by a name that
resolves differently the next time.

Where a proxy is set (`http_proxy` and the like), it resolves the names: then only names and literal
addresses are checked here.
"""

import ipaddress
import urllib.request
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import httpx
import trio

from distconv_engine.config import Config
from distconv_engine.failures import InputFault, NotAllowedHere
from distconv_engine.transfer.hosts import (
    LOCAL_NAMES,
    HostRules,
    literal_address,
    parse_rules,
    plain_host,
)
from distconvd.model import is_denied, is_denied_address

Kind = Literal["source", "output"]
_PURPOSE = "distconv_purpose"
_ADDRESSES_MAX = 8
"""How many addresses of one name are tried."""
_LOOPBACK = ipaddress.ip_address("127.0.0.1")


class Purpose(NamedTuple):
    """What a request is for; each redirect carries it on."""

    kind: Kind
    url: httpx.URL
    """The job's own."""


def source_at(url: str) -> dict[str, Any]:
    """Return the extensions of a request that fetches a source."""
    return {_PURPOSE: Purpose("source", httpx.URL(url))}


def output_at(url: str) -> dict[str, Any]:
    """Return the extensions of a request that sends an output, or reads it back."""
    return {_PURPOSE: Purpose("output", httpx.URL(url))}


def check_hosts(config: Config) -> None:
    """Raise `ConfigError` for an entry that is none."""
    _rules_of(config)


@asynccontextmanager
async def open_guarded_client(config: Config) -> AsyncGenerator[httpx.AsyncClient]:
    """Open a client for sources and outputs; each request needs a purpose."""
    own_output = config.output if config.output and "://" in config.output else None
    transport = GuardedTransport(_rules_of(config), own_output)
    async with httpx.AsyncClient(transport=transport, follow_redirects=True) as client:
        yield client


def _rules_of(config: Config) -> dict[Kind, HostRules]:
    return {
        "source": parse_rules(config.source_hosts, "source_hosts"),
        "output": parse_rules(config.output_hosts, "output_hosts"),
    }


class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends what the rules allow, with connections of its own for sources and outputs.

    Args:
        rules: by kind.
        own_output: the engine's own `--output`, which needs no rule.
    """

    def __init__(self, rules: dict[Kind, HostRules], own_output: str | None) -> None:
        self._rules = rules
        self._own_output = None if own_output is None else httpx.URL(own_output)
        self._proxies = urllib.request.getproxies()
        self._transports: dict[tuple[str, str | None], httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request, the first or that of a redirect; raises `JobFailure` for its host."""
        purpose: Purpose = request.extensions[_PURPOSE]
        if self._is_own_output(request.url, purpose):
            return await self._transport("own", None, request).handle_async_request(request)
        rules = self._rules[purpose.kind]
        _check_request(request.url, purpose, rules)
        transport = self._transport(purpose.kind, rules, request)
        return await transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            await transport.aclose()

    def _is_own_output(self, url: httpx.URL, purpose: Purpose) -> bool:
        own = self._own_output
        is_first = _origin(url) == _origin(purpose.url)
        return (
            own is not None
            and purpose.kind == "output"
            and is_first
            and _origin(url) == _origin(own)
            and url.path.startswith(own.path.rstrip("/") + "/")
        )

    def _transport(
        self, group: str, rules: HostRules | None, request: httpx.Request
    ) -> httpx.AsyncHTTPTransport:
        proxy = self._proxy_of(request.url)
        found = self._transports.get((group, proxy))
        if found is None:
            found = self._transports[group, proxy] = httpx.AsyncHTTPTransport(proxy=proxy)
            if rules is not None and proxy is None:
                _guard_connections(found, rules)
        return found

    def _proxy_of(self, url: httpx.URL) -> str | None:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if not proxy or urllib.request.proxy_bypass(url.host):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"


def _check_request(url: httpx.URL, purpose: Purpose, rules: HostRules) -> None:
    """Raise the failure for a host that is refused before it is resolved."""
    host = plain_host(url.raw_host.decode("ascii"))
    is_first = _origin(url) == _origin(purpose.url)
    if is_denied(host):
        raise InputFault(_sentence(purpose, url, "no job may use this address"))
    address = literal_address(host)
    if address is None and host in LOCAL_NAMES:
        address = _LOOPBACK
    if address is None:
        if not rules.allows_name(host):
            raise NotAllowedHere(_sentence(purpose, url, "its host is not allowed"))
    elif not rules.allows_address(host, address, is_named=is_first):
        why = "its address is not allowed" if is_first else "a redirect leads there"
        raise NotAllowedHere(_sentence(purpose, url, why))


def _sentence(purpose: Purpose, url: httpx.URL, why: str) -> str:
    if purpose.kind == "source":
        return f"This engine fetches nothing from {url.host}: {why} (setting source_hosts)."
    return f"This engine sends nothing to {url.host}: {why} (setting output_hosts)."


def _origin(url: httpx.URL) -> tuple[str, bytes, int]:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
    return url.scheme, url.raw_host.lower(), port


def _guard_connections(transport: httpx.AsyncHTTPTransport, rules: HostRules) -> None:
    # httpx has no parameter for this, but a test fails if an update of it makes this void.
    pool: Any = transport._pool  # pyright: ignore[reportPrivateUsage]
    pool._network_backend = _GuardedBackend(pool._network_backend, rules)


@dataclass(frozen=True, slots=True)
class _GuardedBackend:
    """Resolves names, and connects to addresses that are allowed only; see httpcore's backends."""

    inner: Any
    rules: HostRules

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the name that httpcore uses
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Any:
        """Connect to a host."""
        failure: Exception | None = None
        for address in await self._addresses(plain_host(host), port, timeout):
            try:
                return await self.inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except Exception as error:  # noqa: BLE001 - of httpcore's; the last one is raised
                failure = error
        raise failure or httpx.ConnectError(f"{host} has no address")

    async def connect_unix_socket(self, path: str, *args: Any, **options: Any) -> Any:
        """No URL of a job leads to one."""
        raise NotAllowedHere(f"This engine uses no socket at {path}.")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await trio.sleep(seconds)

    async def _addresses(self, host: str, port: int, wait_s: float | None) -> list[str]:
        """Return the addresses of a host that are allowed; raises `JobFailure` if none is."""
        literal = literal_address(host)
        if literal is not None:  # `_check_request` has decided whether the job may name it
            return [host]
        found = await _resolve(host, port, wait_s)
        is_named = host in LOCAL_NAMES  # the same
        addresses = [ipaddress.ip_address(each.partition("%")[0]) for each in found]
        allowed = [
            str(address)
            for address in addresses
            if self.rules.allows_address(host, address, is_named=is_named)
        ]
        if addresses and not allowed:
            if all(is_denied_address(address) for address in addresses):
                raise InputFault(f"{host} has an address that no job may use.")
            raise NotAllowedHere(
                f"This engine does not connect to {host}: its name resolves to an address that is not"
                " allowed (settings source_hosts and output_hosts)."
            )
        return allowed[:_ADDRESSES_MAX]


async def _resolve(host: str, port: int, wait_s: float | None) -> list[str]:
    """Return the addresses of a name, each once, in the resolver's order."""
    try:
        with trio.fail_after(float("inf") if wait_s is None else wait_s):
            rows = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except trio.TooSlowError as error:
        raise httpx.ConnectTimeout(f"{host} was not resolved in time") from error
    except OSError as error:
        raise httpx.ConnectError(error.strerror or str(error)) from error
    return list(dict.fromkeys(str(row[4][0]) for row in rows))
