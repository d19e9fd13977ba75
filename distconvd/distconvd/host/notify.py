"""Notify systemd of the daemon's state, by datagrams to its socket (`sd_notify(3)`).

Written by hand, as the protocol is one line and a library would be another dependency. Without
`NOTIFY_SOCKET` nothing is sent. A manager that does not listen is not a reason to stop: that is logged.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping

import trio

log = logging.getLogger("distconvd.notify")

STOP_MARGIN_S = 60.0
"""Time for a stop beyond the drain: committing, checkpointing and closing the store."""


class Notifier:
    """Notifies the service manager of READY, RELOADING, STOPPING and, if asked, WATCHDOG.

    Args:
        environ: the process's environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address_of(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_s = _watchdog_s(environ)
        """Send a sign of life at least this often; None: the manager does not watch."""

    def ready(self) -> None:
        """Report that the daemon serves, for the first time or again after a reload."""
        self._notify("READY=1")

    def reloading(self) -> None:
        """Report that a reload begins; `ready` ends it."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, drain_s: float) -> None:
        """Report that the drain begins; it may take `drain_s`, whatever `TimeoutStopSec` is."""
        self._notify("STOPPING=1")
        self._notify(f"EXTEND_TIMEOUT_USEC={int((drain_s + STOP_MARGIN_S) * 1e6)}")

    async def watch(self) -> None:
        """Send signs of life while the event loop runs; returns if the manager does not watch."""
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
            log.warning(
                "the service manager was not notified of %s: %s",
                state.partition("\n")[0],
                fault.strerror or fault,
            )


def _address_of(name: str) -> bytes | None:
    """Return the socket's address: a path, or with a leading `@` an abstract name."""
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])
    return os.fsencode(name) if name.startswith("/") else None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdecimal() and int(text) else None
