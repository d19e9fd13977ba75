"""Send heartbeats, which register the engine, renew its leases and return what to cancel.

Each reply states the daemon's lease. Heartbeats follow it, so that an operator who shortens the lease
need not change every engine: `heartbeat_s` is only the longest interval.

An unavailable daemon is no reason to stop anything: a lease outlives a few missed heartbeats, and
what is encoded meanwhile is reported once it is back.
"""

import trio

from distconv_engine.backoff import Backoff
from distconv_engine.daemon_link.http import DaemonApi, DaemonUnavailable, Rejected
from distconv_engine.logs import Log
from distconv_engine.status import EngineStatus

DEREGISTER_S = 2.0
HEARTBEATS_A_LEASE = 3
"""So many, so that a lease survives two lost ones."""
INTERVAL_S_MIN = 0.1
"""A daemon whose lease is shorter than a few of these cannot be kept up with."""
_KEY_REMEDY = "give one with the role `engine`: DISTCONV_API_KEY, --api-key-file or --api-key"


def interval_s(heartbeat_s: float, lease_s: float) -> float:
    """Return the time between heartbeats: as set, or sooner where the lease requires it."""
    return min(heartbeat_s, max(INTERVAL_S_MIN, lease_s / HEARTBEATS_A_LEASE))


class Heartbeats:
    """Sends heartbeats in a loop. `registered` is set once the daemon has accepted the first."""

    def __init__(self, api: DaemonApi, engine_status: EngineStatus, log: Log) -> None:
        self.registered = trio.Event()
        self._api = api
        self._engine_status = engine_status
        self._log = log
        self._interval_s = engine_status.config.heartbeat_s
        self._now = trio.Event()
        self._backoff = Backoff(0.5, self._interval_s)
        self._is_unavailable = False
        self._rejection: str | None = None
        """Why the daemon rejected the last one; None: it did not."""

    def send_now(self) -> None:
        """Send the next one immediately: something has changed that the daemon should know."""
        self._now.set()

    async def run(self) -> None:
        """Send heartbeats until cancelled."""
        while True:
            self._now = trio.Event()
            delay_s = await self._send()
            with trio.move_on_after(delay_s):
                await self._now.wait()

    async def send_and_wait(self) -> None:
        """Send one and return once it is answered, or the daemon proves unavailable."""
        await self._send()

    async def deregister(self) -> None:
        """Report that the engine has no job and wants none; the daemon would find out anyway."""
        with trio.move_on_after(DEREGISTER_S):
            await self._send()

    async def _send(self) -> float:
        """Send one and apply the answer; returns the seconds until the next."""
        try:
            reply = await self._api.heartbeat(self._engine_status.heartbeat())
        except DaemonUnavailable as error:
            if not self._is_unavailable:
                self._log.warning("daemon is unavailable", reason=error)
            self._is_unavailable = True
            return min(self._backoff.next_s(), self._interval_s)
        except Rejected as error:
            self._log_rejection(error)
            return self._interval_s
        if self._is_unavailable or self._rejection is not None or not self.registered.is_set():
            self._log.info("registered with the daemon", state=reply.state)
        self._is_unavailable, self._rejection = False, None
        self._backoff.reset()
        self.registered.set()
        self._engine_status.apply(reply)
        self._interval_s = interval_s(self._engine_status.config.heartbeat_s, reply.lease_s)
        return self._interval_s

    def _log_rejection(self, error: Rejected) -> None:
        """Log why the daemon rejects it: once, not each time for the same reason."""
        if str(error) == self._rejection:
            return
        self._rejection = str(error)
        if error.is_key_trouble:
            self._log.error("the daemon rejects this key", reason=error, remedy=_KEY_REMEDY)
        else:
            self._log.error("heartbeat rejected", reason=error)
