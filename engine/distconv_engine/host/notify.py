"""Notify systemd of the engine's state (`sd_notify(3)`), by a datagram to its socket.

The daemon has its own such module: neither may import the other's, and the protocol is one line.
Without `NOTIFY_SOCKET` nothing is sent. A manager that does not listen is no reason to stop; that
is only logged.
"""

import os
import socket
from collections.abc import Mapping

import trio

from distconv_engine.files import describe_fault
from distconv_engine.logs import Log

STOP_MARGIN_S = 60.0
"""What a stop may take beyond the drain: releasing jobs, delivering reports, ending ffmpeg."""


class Notifier:
    """Notifies the service manager of READY, STOPPING and, if requested, WATCHDOG.

    Args:
        environ: the process's environment.
        log: for a manager that does not listen.
    """

    def __init__(self, environ: Mapping[str, str], log: Log) -> None:
        self._address = _address_of(environ.get("NOTIFY_SOCKET", ""))
        self._log = log
        self.watchdog_s = _watchdog_s(environ)
        """Send a sign of life at least this often; None: nobody watches."""

    def ready(self) -> None:
        """Notify that the encoders are verified."""
        self._notify("READY=1")

    def stopping(self, drain_s: float) -> None:
        """Notify that a drain begins, which may take `drain_s` whatever `TimeoutStopSec` says."""
        self._notify("STOPPING=1")
        self._notify(f"EXTEND_TIMEOUT_USEC={int((drain_s + STOP_MARGIN_S) * 1e6)}")

    async def watch(self) -> None:
        """Send signs of life while the event loop runs; returns if nobody watches."""
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
            self._log.warning(
                "service manager was not notified", state=state, reason=describe_fault(fault)
            )


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
