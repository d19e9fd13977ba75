"""Open listening sockets, and explain to the operator why one cannot be opened.

A unix socket that a daemon left behind is replaced; one on which another process answers is not.
Sockets that systemd passes (`sd_listen_fds(3)`) are used as they are.
"""

import errno
import os
import socket
import stat
import sys
from collections.abc import MutableMapping
from typing import cast

import trio

from distconvd.edge.bind_address import is_loopback

BACKLOG = 1_024
FIRST_INHERITED = 3
"""The first descriptor that systemd passes (SD_LISTEN_FDS_START)."""
INHERITED_MAX = 1_000

Address = tuple[str | int, ...]
"""AF_INET: host and port; AF_INET6: also flow info and scope id."""


async def open_listeners(host: str | None, port: int) -> list[trio.SocketListener]:
    """Listen on every address that a host name resolves to, IPv4 and IPv6.

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
            raise OSError(errno.EADDRNOTAVAIL, f"{host!r} has no address that can be listened on")
    except BaseException:
        for listener in listeners:
            await trio.aclose_forcefully(listener)
        raise
    return listeners


async def open_unix_listener(path: str, mode: int = 0o660) -> trio.SocketListener:
    """Listen on a unix socket; raises `OSError` with a message that says what to do.

    Args:
        path: of the socket file; one on which nobody answers is replaced.
        mode: permissions of the file: who may connect.
    """
    try:
        await _clear(path)
        sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Bound under a strict umask, so that nobody can connect before the mode is set.
            before = os.umask(0o177)
            try:
                await sock.bind(path)
            finally:
                os.umask(before)
            os.chmod(path, mode)
            sock.listen(BACKLOG)
            return trio.SocketListener(sock)
        except BaseException:
            sock.close()
            raise
    except OSError as fault:
        reason = fault.strerror or str(fault)
        raise OSError(fault.errno, f"cannot listen on unix:{path}: {reason}") from fault


async def _clear(path: str) -> None:
    """Remove a socket that a daemon left behind; raises `OSError` for anything else at the path."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "there is a file with that name; move it away")
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            await probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, "another program answers there; stop it")


def inherited_listeners(environ: MutableMapping[str, str]) -> list[trio.SocketListener]:
    """Return the sockets that systemd has passed; empty when it has passed nothing.

    The variables are removed, so that no child process takes the sockets for its own. Raises
    `OSError` for a descriptor that is not a listening stream socket.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    descriptor_count = environ.get("LISTEN_FDS", "0")
    if not (
        descriptor_count.isascii()
        and descriptor_count.isdecimal()
        and int(descriptor_count[:6]) <= INHERITED_MAX
    ):
        raise OSError(
            errno.EINVAL,
            f"LISTEN_FDS is {descriptor_count[:80]!r}: expected a number of sockets, as systemd sets it;"
            " unset it to start the daemon by hand",
        )
    count = int(descriptor_count)
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    listeners: list[trio.SocketListener] = []
    for descriptor in range(FIRST_INHERITED, FIRST_INHERITED + count):
        try:
            os.set_inheritable(descriptor, False)
            sock = trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor))
            listeners.append(trio.SocketListener(sock))
        except (ValueError, OSError) as fault:
            reason = fault.strerror if isinstance(fault, OSError) else fault
            raise OSError(
                errno.EINVAL,
                f"cannot serve descriptor {descriptor}, which systemd passed ({reason}): its socket"
                " unit needs ListenStream= and Accept=no; unset LISTEN_FDS to start by hand",
            ) from fault
    return listeners


def reaches_this_machine_only(listener: trio.SocketListener) -> bool:
    """Whether no other machine can connect."""
    address = listener.socket.getsockname()
    return not isinstance(address, tuple) or is_loopback(str(cast("Address", address)[0]))


async def _addresses(host: str | None, port: int) -> list[tuple[int, Address]]:
    try:
        found = await trio.socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as fault:
        raise OSError(
            fault.errno,
            f"{host!r} is not an address of this machine ({fault.strerror}); check --host",
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
            # Else "::" also takes the IPv4 port, and the listener for 0.0.0.0 finds it in use.
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
        errno.EACCES: "is not available to this user: ports below 1024 need root or "
        "CAP_NET_BIND_SERVICE; choose another with --port",
        errno.EADDRNOTAVAIL: "is not an address of this machine; check --host",
    }.get(fault.errno or 0, f"cannot be listened on: {fault.strerror}")
    return OSError(fault.errno, f"{address} {advice}")


def name_of(address: object) -> str:
    """Return a socket address as people write it: `10.0.0.1:80`, `[::1]:80`, or a path."""
    if isinstance(address, tuple):
        host, port = (str(part) for part in cast("tuple[object, ...]", address)[:2])
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(address) or "unix socket"
