"""Parse a listen address: `HOST:PORT`, `[::1]:8080`, `unix:/run/d.sock` or `systemd`."""

import ipaddress
from typing import NamedTuple

SYSTEMD = "systemd"


class ListenAddress(NamedTuple):
    """An address to listen on; `path` is a unix socket's, `inherited` means systemd's sockets."""

    host: str = ""
    port: int = 0
    path: str = ""
    inherited: bool = False

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect, judged by the address as it is written."""
        return bool(self.path) or self.inherited or is_loopback(self.host)

    def __str__(self) -> str:
        """Return the address as a person writes it."""
        if self.inherited:
            return SYSTEMD
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_listen_address(text: str) -> ListenAddress:
    """Return the address that a text names; raises `ValueError` that says what is wrong."""
    if text == SYSTEMD:
        return ListenAddress(inherited=True)
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or len(path.encode()) > 107:
            raise ValueError(f"{text!r}: a unix socket needs an absolute path of up to 107 bytes")
        return ListenAddress(path=path)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, as [::1]:8080")
    if not (colon and host and port.isascii() and port.isdecimal() and int(port[:6]) <= 65535):
        raise ValueError(f"{text!r}: expected HOST:PORT, unix:/PATH or 'systemd'")
    return ListenAddress(host, int(port))


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
