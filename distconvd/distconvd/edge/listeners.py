"""Listening sockets, and messages for the operator when there can be none."""

import errno
import socket
import sys
from typing import cast

import trio

BACKLOG = 1_024

Address = tuple[str | int, ...]
"""Of AF_INET or AF_INET6: host, port, and for the latter two numbers more."""


async def open_listeners(host: str | None, port: int) -> list[trio.SocketListener]:
    """Listen on every address that a host name stands for, IPv4 and IPv6.

    Args:
        host: a name or an address; None for all addresses of this machine.
        port: 0 lets the system choose one, the same for all addresses.

    Raises:
        OSError: with a message that says what to do.
    """
    listeners: list[trio.SocketListener] = []
    try:
        for family, address in await _addresses(host, port):
            chosen = listeners[0].socket.getsockname()[1] if listeners else port
            listener = await _maybe_listen(family, (address[0], chosen, *address[2:]))
            if listener is not None:
                listeners.append(listener)
        if not listeners:
            raise OSError(errno.EADDRNOTAVAIL, f"{host!r} stands for no address to listen on")
    except BaseException:
        for listener in listeners:
            await trio.aclose_forcefully(listener)
        raise
    return listeners


async def _addresses(host: str | None, port: int) -> list[tuple[int, Address]]:
    try:
        found = await trio.socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as fault:
        raise OSError(
            fault.errno, f"{host!r} is no address of this machine ({fault.strerror}); check --host"
        ) from fault
    pairs = [(int(family), cast("Address", address)) for family, _, _, _, address in found]
    return list(dict.fromkeys(pairs))


async def _maybe_listen(family: int, address: Address) -> trio.SocketListener | None:
    """Listen on one address; None when the kernel lacks its family (IPv6 is often off)."""
    try:
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
    except OSError as fault:
        if fault.errno == errno.EAFNOSUPPORT:
            return None
        raise
    try:
        if sys.platform != "win32":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Else "::" takes the IPv4 port too, and the listener for 0.0.0.0 finds it in use.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        await sock.bind(address)
        sock.listen(BACKLOG)
        return trio.SocketListener(sock)
    except OSError as fault:
        sock.close()
        raise _explained(fault, name_of(address)) from fault
    except BaseException:
        sock.close()
        raise


def _explained(fault: OSError, address: str) -> OSError:
    advice = {
        errno.EADDRINUSE: "is in use: another distconvd or another program listens there; stop "
        "it, or choose another port with --port",
        errno.EACCES: "may not be listened on by this user: ports below 1024 need root or "
        "CAP_NET_BIND_SERVICE; choose another with --port",
        errno.EADDRNOTAVAIL: "is no address of this machine; check --host",
    }.get(fault.errno or 0, f"cannot be listened on: {fault.strerror}")
    return OSError(fault.errno, f"{address} {advice}")


def name_of(address: object) -> str:
    """Return a socket address as people write it: `10.0.0.1:80`, `[::1]:80`, or a path."""
    if isinstance(address, tuple):
        host, port = (str(part) for part in cast("tuple[object, ...]", address)[:2])
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(address) or "unix socket"
