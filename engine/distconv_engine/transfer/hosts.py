"""Decide which hosts an engine connects to, by the entries of its settings.

An entry is a name (`nas.lan`), a domain (`*.example.org`), an address or a network (`10.0.0.0/8`), or
`*`: every public address, and what the job's own URL names as an address or as `localhost`. An entry
that begins with `!` denies. Without an entry that allows, `*` holds. Denying goes before allowing, and
nothing allows the addresses of `distconvd.model.addresses`.

So by default loopback and private networks are reached only by a job whose own URL names the address:
never by a redirect, and never by a name that resolves there.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from distconv_engine.errors import ConfigError
from distconvd.model import Address, inner_address, is_denied, is_denied_address, is_private
from distconvd.model import literal_address as literal_address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOCAL_NAMES = frozenset({"localhost"})
"""Names that mean loopback wherever they are resolved (RFC 6761)."""


@dataclass(frozen=True, slots=True)
class _Entries:
    names: frozenset[str]
    """Lower case; one with a dot at its beginning stands for the names below it."""
    networks: tuple[Network, ...]
    is_any: bool

    def has_name(self, host: str) -> bool:
        """Whether a name is listed, itself or by its domain."""
        _, dot, domain = host.partition(".")
        while dot:
            if f".{domain}" in self.names:
                return True
            _, dot, domain = domain.partition(".")
        return host in self.names

    def has_address(self, address: Address) -> bool:
        """Whether an address is listed, itself or by its network."""
        inner = inner_address(address)
        return any(each.version == inner.version and inner in each for each in self.networks)


@dataclass(frozen=True, slots=True)
class HostRules:
    """The rules of one setting; see the module."""

    allowed: _Entries
    denied: _Entries

    def allows_name(self, host: str) -> bool:
        """Whether a name may be resolved at all; its addresses are checked then."""
        if is_denied(host) or self.denied.is_any or self.denied.has_name(host):
            return False
        return self.allowed.is_any or self.allowed.has_name(host) or bool(self.allowed.networks)

    def allows_address(self, host: str, address: Address, *, is_named: bool) -> bool:
        """Whether an address may be reached.

        Args:
            host: the name that resolves to it, or the address itself.
            address: where the connection would go.
            is_named: the job's own URL names this address, not a redirect and not a name's resolution.
        """
        if is_denied_address(address) or self.denied.is_any or self.denied.has_address(address):
            return False
        if self.allowed.has_address(address) or self.allowed.has_name(host):
            return True
        return self.allowed.is_any and (is_named or not is_private(address))


def parse_rules(entries: Sequence[str], setting: str) -> HostRules:
    """Return the rules of a setting; raises `ConfigError`."""
    allowed = [entry for entry in entries if not entry.startswith("!")]
    denied = [entry[1:] for entry in entries if entry.startswith("!")]
    return HostRules(_parse(allowed or ["*"], setting), _parse(denied, setting))


def plain_host(host: str) -> str:
    """Return a URL's host as it is compared."""
    return host.lower().strip("[]").rstrip(".")


def _parse(entries: Sequence[str], setting: str) -> _Entries:
    names: set[str] = set()
    networks: list[Network] = []
    for entry in entries:
        if entry == "*":
            continue
        try:
            networks.append(ipaddress.ip_network(entry.strip("[]")))
        except ValueError:
            names.add(_checked_name(entry, setting))
    return _Entries(frozenset(names), tuple(networks), "*" in entries)


def _checked_name(entry: str, setting: str) -> str:
    name = plain_host(entry.removeprefix("*"))
    labels = name.removeprefix(".").split(".")
    is_domain = entry.startswith("*.")
    is_plain = all(label and label.replace("-", "").replace("_", "").isalnum() for label in labels)
    is_number = labels[-1].isdecimal()
    if not is_plain or is_number or (entry.startswith("*") and not is_domain):
        raise ConfigError(
            f"Setting {setting}: expected a host, *.DOMAIN, an address, a network such as 10.0.0.0/8,"
            f" or *, with ! before it to deny it, not {entry!r}."
        )
    return name
