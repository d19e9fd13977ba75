"""Define which addresses a job may never name or reach, and which are private.

Link-local addresses and those of the clouds' metadata services give away the machine's own credentials;
the others of the table reach no server that could have a source. An IPv4 address within an IPv6 one
counts as that IPv4 address.
"""

import ipaddress
import re
import unicodedata

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

DENIED_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "100.100.100.200/32",  # metadata (Alibaba)
        "168.63.129.16/32",  # metadata (Azure)
        "169.254.0.0/16",  # link-local, with most metadata services
        "192.0.0.192/32",  # metadata (Oracle)
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, with broadcast
        "::/128",  # this host
        "fd00:ec2::/32",  # metadata (Amazon)
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local, deprecated
        "ff00::/8",  # multicast
    )
)
"""No job may name or reach these, whatever the settings say."""
DENIED_NAMES = frozenset({"metadata.google.internal", "metadata.goog", "instance-data"})
_NAT64 = tuple(ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96"))
"""Networks whose last 32 bits are an IPv4 address (RFC 6052, RFC 8215, RFC 4291)."""
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|0[0-7]*|[1-9][0-9]*")


def is_denied(host: str) -> bool:
    """Whether a URL's host is, in any spelling, one that no job may name."""
    address = literal_address(host) or _odd_address(_plain(host))
    return is_denied_address(address) if address is not None else _plain(host) in DENIED_NAMES


def is_denied_address(address: Address) -> bool:
    """Whether no job may reach an address."""
    inner = inner_address(address)
    return any(inner in network for network in DENIED_NETWORKS if network.version == inner.version)


def is_private(address: Address) -> bool:
    """Whether an address is not on the public network: loopback, private, shared or reserved."""
    return not inner_address(address).is_global


def literal_address(host: str) -> Address | None:
    """Return the address that a host names literally, in the usual spelling; None for a name."""
    try:
        return ipaddress.ip_address(_plain(host).partition("%")[0])
    except ValueError:
        return None


def inner_address(address: Address) -> Address:
    """Return the IPv4 address within an IPv6 one, if there is one, else the address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    number = int(address)
    if number > 1 and any(address in network for network in _NAT64):
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    return address


def _plain(host: str) -> str:
    """Return a host as a resolver reads it: compatible digits and dots, lower case, no final dot."""
    plain = unicodedata.normalize("NFKC", host).replace("\u3002", ".").lower()
    return plain.strip("[]").rstrip(".")


def _odd_address(host: str) -> ipaddress.IPv4Address | None:
    """Return an IPv4 address in the spellings of `inet_aton`: octal, hexadecimal, fewer parts."""
    parts = host.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    *first, last = (_number(part) for part in parts)
    room = 4 - len(first)
    if any(number > 255 for number in first) or last >= 256**room:
        return None
    value = int.from_bytes(bytes(first), "big") << (8 * room) if first else 0
    return ipaddress.IPv4Address(value | last)


def _number(text: str) -> int:
    if text[:2] in ("0x", "0X"):
        return int(text[2:] or "0", 16)
    return int(text, 8) if text.startswith("0") else int(text)
