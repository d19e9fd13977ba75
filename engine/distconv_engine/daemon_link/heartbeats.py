"""Signs of life: they register the engine, renew its leases and bring back what to cancel.

The daemon being away is no reason to stop anything: a lease outlives a few missed heartbeats, and
what is encoded meanwhile is reported when it is back.
"""

import trio

from distconv_engine.backoff import Backoff
from distconv_engine.daemon_link.http import Away, DaemonApi, Refused
from distconv_engine.logs import Log
from distconv_engine.status import Standing

GOODBYE_S = 2.0
_KEY_TROUBLE = frozenset({401, 403})
_KEY_REMEDY = "give one with the role `engine`: DISTCONV_API_KEY, --api-key-file or --api-key"


class Heartbeats:
    """The loop that sends them. `registered` is set once the daemon has taken the first."""

    def __init__(self, api: DaemonApi, standing: Standing, log: Log) -> None:
        self.registered = trio.Event()
        self._api = api
        self._standing = standing
        self._log = log
        self._interval_s = standing.config.heartbeat_s
        self._now = trio.Event()
        self._backoff = Backoff(0.5, self._interval_s)
        self._away = False
        self._refusal: str | None = None
        """What the daemon said to the last one, unless it took it."""

    def send_now(self) -> None:
        """Have the next one sent at once: something has changed that the daemon should know."""
        self._now.set()

    async def run(self) -> None:
        """Send them for ever."""
        while True:
            self._now = trio.Event()
            delay_s = await self._send()
            with trio.move_on_after(delay_s):
                await self._now.wait()

    async def tell(self) -> None:
        """Send one and return once it is answered, or the daemon is found to be away."""
        await self._send()

    async def say_goodbye(self) -> None:
        """Tell that nothing is held and wanted any more; the daemon would find out anyway."""
        with trio.move_on_after(GOODBYE_S):
            await self._send()

    async def _send(self) -> float:
        """Send one and obey the answer; returns the seconds until the next."""
        try:
            reply = await self._api.heartbeat(self._standing.heartbeat())
        except Away as error:
            if not self._away:
                self._log.warning("daemon is away", reason=error)
            self._away = True
            return self._backoff.next_s()
        except Refused as error:
            self._tell_refusal(error)
            return self._interval_s
        if self._away or self._refusal is not None or not self.registered.is_set():
            self._log.info("registered with the daemon", state=reply.state)
        self._away, self._refusal = False, None
        self._backoff.reset()
        self.registered.set()
        self._standing.obey(reply)
        return self._interval_s

    def _tell_refusal(self, error: Refused) -> None:
        """Log what the daemon has against it: once, not each time that it says the same."""
        if str(error) == self._refusal:
            return
        self._refusal = str(error)
        if error.status in _KEY_TROUBLE:
            self._log.error("the daemon refuses this key", reason=error, remedy=_KEY_REMEDY)
        else:
            self._log.error("heartbeat refused", reason=error)
