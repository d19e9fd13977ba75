"""Telling systemd how the daemon is (`sd_notify(3)`): a datagram to the socket that it names.

By hand, as the protocol is one line and a library would be another dependency. Without
`NOTIFY_SOCKET` nothing is told. A manager that does not listen is no reason to stop: it is logged.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping

import trio

log = logging.getLogger("distconvd.notify")

STOP_MARGIN_S = 60.0
"""What a stop may take beyond the drain: committing, folding and closing the store."""


class Notifier:
    """Tells the service manager of READY, RELOADING, STOPPING and, as asked, WATCHDOG.

    Args:
        environ: the process's environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address_of(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_s = _watchdog_s(environ)
        """Send a sign of life at least so often; None: nobody watches."""

    def ready(self) -> None:
        """The daemon serves, for the first time or again after a reload."""
        self._notify("READY=1")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, drain_s: float) -> None:
        """The drain begins; it may take `drain_s`, whatever the unit says (`TimeoutStopSec`)."""
        self._notify("STOPPING=1")
        self._notify(f"EXTEND_TIMEOUT_USEC={int((drain_s + STOP_MARGIN_S) * 1e6)}")

    async def watch(self) -> None:
        """Give signs of life for as long as the event loop turns; returns if nobody watches."""
        while self.watchdog_s is not None:
            self._notify("WATCHDOG=1")
            await trio.sleep(self.watchdog_s / 2)

    def _notify(self, state: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(state.encode(), self._address)
        except OSError as fault:
            log.warning("the service manager was not told %s: %s", state.partition("\n")[0], fault)


def _address_of(name: str) -> bytes | None:
    """Return the socket's address: a path, or with a leading `@` a name in the abstract space."""
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])
    return os.fsencode(name) if name.startswith("/") else None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdecimal() and int(text) else None
