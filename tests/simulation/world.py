"""Set up the world of one run: its seed, its size, its daemon and its store."""

import errno
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio
from tests.simulation.books import Books
from tests.simulation.chronicle import Chronicle
from tests.simulation.wire import Gone, Wire

from distconv_plugins.stores.memory import Memory, MemoryStore
from distconvd.store import Change
from distconvd.testing.daemon import WALL_MS, Daemon, open_daemon

LEASE_S = 90.0
TIMEOUT_S = 250.0
DISPATCH: dict[str, Any] = {
    "lease_s": LEASE_S,
    "start_grace_s": 45.0,
    "engine_timeout_s": TIMEOUT_S,
    "pickup_s": 5.0,
    "redeliver_s": 3.0,
    "retry_backoff_s": 1.0,
    "retry_backoff_max_s": 20.0,
    "retry_elsewhere_s": 15.0,
    "lost_attempts_max": 3,
    "transient_attempts_max": 3,
    "quarantine_after": 4,
    "quarantine_s": 60.0,
}
EDGE: dict[str, Any] = {"connections_max": 8_192, "idle_timeout_s": 1e6}


@dataclass(frozen=True)
class Size:
    """The size of a run."""

    jobs: int
    engines: int
    deaths: int
    """How often the daemon is killed."""
    clients: int = 40

    @property
    def submitting_s(self) -> float:
        """How long the clients take to submit, in virtual time."""
        return 60 + self.jobs / 10


class World:
    """What all actors of one run share."""

    def __init__(self, seed: int, size: Size) -> None:
        self.seed, self.size = seed, size
        self.wire = Wire()
        self.books = Books()
        self.slots: dict[str, int] = {}
        self.chronicle = Chronicle(self.slots)
        self.memory = Memory()
        self.gossip: list[tuple[str, int, str]] = []
        """(job, attempt, engine) of every assignment that an engine received; liars use it."""
        self.at_work = 0
        """Engines that still have something to report."""
        self.failed_commits = 0

    def dice(self, name: str) -> random.Random:
        """Return the dice of one actor, which depend only on the seed and its name."""
        return random.Random(f"{self.seed}/{name}")

    @property
    def is_dusk(self) -> bool:
        """Whether all jobs have been submitted: from then on actors do only what the jobs need."""
        return trio.current_time() > self.size.submitting_s * 1.2

    async def insist(
        self, method: str, path: str, body: object = None, headers: str = ""
    ) -> tuple[int, bytes]:
        """Repeat a request until there is a reply that is not 503."""
        while True:
            try:
                status, reply = await self.wire.call(method, path, body, headers)
            except Gone:
                status, reply = 503, b""
            if status != 503:
                return status, reply
            await trio.sleep(1.5)

    @asynccontextmanager
    async def reign(self) -> AsyncGenerator[tuple[Daemon, trio.CancelScope]]:
        """Run one daemon; cancelling its scope is a power cut, leaving the block drains it."""
        with trio.CancelScope() as scope:
            store = SimStore(self)
            async with open_daemon(store=store, dispatch=DISPATCH, edge=EDGE) as daemon:
                self.wire.daemon = daemon
                try:
                    yield daemon, scope
                finally:
                    self.wire.daemon = None
                    store.has_power = not scope.cancel_called
            self.wire.hang_up()


class SimStore(MemoryStore):
    """The memory store as slow as a disk; sometimes it is full, and it may lose its power."""

    def __init__(self, world: World) -> None:
        super().__init__(world.memory)
        self.has_power = True
        self._world = world
        self._dice = world.dice(f"store {trio.current_time():.3f}")
        self._outage_begins_s = self._outage_ends_s = trio.current_time()

    async def commit(self, changes: Sequence[Change]) -> None:
        """Commit or fail; the chronicle records what became durable."""
        await trio.sleep(self._dice.expovariate(1 / 0.008))
        if self._fails(trio.current_time()):
            self.fail_next(OSError(errno.ENOSPC, "no space left (simulated)"))
        await super().commit(changes)
        self._world.chronicle.note(changes)

    def _fails(self, now_s: float) -> bool:
        if not self.has_power:
            return self._dice.random() < 0.5
        while now_s > self._outage_ends_s:
            self._outage_begins_s = self._outage_ends_s + self._dice.uniform(5, 40)
            self._outage_ends_s = self._outage_begins_s + self._dice.choice([0.3, 3])
        is_failing = now_s > self._outage_begins_s or self._dice.random() < 0.005
        self._world.failed_commits += is_failing
        return is_failing


def wall_ms() -> int:
    """Return the present on the daemon's wall clock."""
    return WALL_MS + int(trio.current_time() * 1000)
