"""Every fault of a farm that one node, file or person causes, at the same time, for simulated hours.

The whole daemon runs in virtual time. Meanwhile its disk is full now and then, its power is cut, its wall
clock is set by up to a day, and somebody sends wrong keys without end. Of six engines one has lost the
share, one has a full disk and one hangs. Of the jobs some have a source that trickles, a place that
refuses the result, a bad source, or a result whose report the daemon does not take.

What must be true: nothing acknowledged is lost; every job ends, and as it should; until then its `why`
is true; no sound engine is quarantined; right keys are let in.
"""

import errno
import random
import re
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import trio
from tests.simulation.wire import Gone, Wire
from trio._core import _run as scheduler
from trio.testing import MockClock

from distconv_plugins.stores.memory import Memory, MemoryStore
from distconvd.store import Change
from distconvd.testing.clock import VirtualClock
from distconvd.testing.daemon import open_daemon

HOURS = 3.0
JOBS = 120
STEPS_S = (-86_400, -86_400, 86_400, -3_600, 3_600, -5)
BACKOFF_MAX_S = 120.0
ENDS_WITHIN_S = 3_000.0
"""The longest that a job may take, trickling sources included."""
DISPATCH: dict[str, Any] = {
    "lease_s": 90.0, "start_grace_s": 45.0, "engine_timeout_s": 120.0, "redeliver_s": 3.0,
    "retry_backoff_s": 60.0, "retry_backoff_max_s": BACKOFF_MAX_S, "retry_elsewhere_s": 30.0,
    "transient_attempts_max": 2, "lost_attempts_max": 20, "quarantine_after": 3, "quarantine_s": 120.0,
}  # fmt: skip
KINDS = {
    "good": ("completed", ""),
    "shared": ("completed", ""),
    "trickling": ("failed_permanently", "1 byte a second|its disk is full"),
    "refused place": ("failed_permanently", "the place answered 404"),
    "bad source": ("failed_permanently", "the source is damaged"),
    "refused report": ("failed_permanently", "the result cannot be reported"),
}
"""What jobs are like, how each must end, and a pattern of the words that its end must have."""
SOUND = ("sound-1", "sound-2", "sound-3")
ENGINES = (*SOUND, "no-share", "full-disk", "hanging")
Record = dict[str, Any]


class ChaosStore(MemoryStore):
    """A memory store whose disk is full for some minutes an hour."""

    async def commit(self, changes: Sequence[Change]) -> None:
        await trio.sleep(0.01)
        if 1_000 < trio.current_time() % 3_600 < 1_200:
            self.fail_next(OSError(errno.ENOSPC, "No space left on device"))
        await super().commit(changes)


class Farm:
    """What the actors share, and what they have seen."""

    def __init__(self) -> None:
        self.wire, self.memory, self.clock = Wire(), Memory(), VirtualClock()
        self.dice = random.Random(15)
        self.submitted: dict[str, tuple[str, float]] = {}
        """Job id to its kind and when it was acknowledged (monotonic)."""
        self.ended_s: dict[str, float] = {}
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()

    async def insist(self, method: str, path: str, body: object = None, headers: str = "") -> Any:
        """Return status and reply of a request, repeated while the daemon is away or read-only."""
        while True:
            try:
                status, reply = await self.wire.call(method, path, body, headers)
            except Gone:
                status, reply = 503, b""
            if status in (401, 403, 429):
                self.faults.append(f"{method} {path} with the right key: {status}")
            if status != 503:
                return status, msgspec.json.decode(reply) if reply else None
            self.counts["503"] += 1
            await trio.sleep(2)

    # ----------------------------------------------------------------------------- the daemon

    async def reign(self, ready: trio.Event) -> None:
        """Run one daemon after another on the same store; power cuts end them."""
        while True:
            with trio.CancelScope() as scope:
                store = ChaosStore(self.memory)
                async with open_daemon(store=store, dispatch=DISPATCH, clock=self.clock) as daemon:
                    self.wire.daemon = daemon
                    ready.set()
                    try:
                        await trio.sleep(self.dice.uniform(1_500, 3_000))
                    finally:
                        self.wire.daemon = None
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
            self.wire.hang_up()
            self.counts["power cuts"] += 1
            await trio.sleep(self.dice.uniform(1, 40))

    async def set_the_clock(self) -> None:
        """Do what a dead battery and a careless administrator do."""
        while True:
            await trio.sleep(self.dice.uniform(100, 500))
            self.clock.step(self.dice.choice(STEPS_S))
            self.counts["clock steps"] += 1

    async def send_wrong_keys(self) -> None:
        """Guess keys, from the same address as everybody."""
        request = b"GET /jobs/ HTTP/1.1\r\nHost: d\r\nX-API-Key: guess-%d\r\n\r\n"
        while True:
            await trio.sleep(5)
            try:
                status, _ = await self.wire.exchange(request % self.dice.randrange(10**9))
            except Gone:
                continue
            self.counts[f"wrong key {status}"] += 1

    # -------------------------------------------------------------------------------- people

    async def submit(self) -> None:
        """Submit jobs of all kinds for two thirds of the time."""
        for number in range(JOBS):
            await trio.sleep(self.dice.uniform(0, 2) * HOURS * 2_400 / JOBS)
            kind = self.dice.choices([*KINDS], [4, 4, 3, 2, 2, 2])[0]
            body = {"source_url": "http://h/a", "target_codec": "h264", "labels": {"kind": kind}}
            key = f"Idempotency-Key: job-{number}\r\n"
            _status, job = await self.insist("POST", "/jobs/", body, key)
            self.submitted[job["job_id"]] = kind, trio.current_time()

    async def watch(self) -> None:
        """Look at engines and at jobs that have not ended, every minute."""
        while True:
            await trio.sleep(60)
            _, engines = await self.insist("GET", "/engines/")
            for engine in engines:
                if engine["status"] == "quarantined" and engine["engine_id"] in SOUND:
                    self.faults.append(f"{engine['engine_id']} is quarantined")
            for job_id, (kind, since_s) in self.submitted.items():
                if job_id not in self.ended_s:
                    await self._look_at(job_id, kind, since_s)

    async def _look_at(self, job_id: str, kind: str, since_s: float) -> None:
        status, job = await self.insist("GET", f"/jobs/{job_id}")
        if status != 200:
            self.faults.append(f"{job_id} was acknowledged, and is {status}")
        elif job["status"] in ("completed", "failed_permanently"):
            self.ended_s[job_id] = trio.current_time() - since_s
        elif trio.current_time() - since_s > ENDS_WITHIN_S:
            self.faults.append(f"{job_id} ({kind}) is {job['status']} after {ENDS_WITHIN_S:.0f} s")
        else:
            _, why = await self.insist("GET", f"/jobs/{job_id}/why")
            self._check_why(job_id, why["summary"])

    def _check_why(self, job_id: str, why: str) -> None:
        self.counts["whys"] += 1
        waits = re.search(r"It waits (\d+) s more", why)
        if waits and int(waits[1]) > BACKOFF_MAX_S:
            self.faults.append(f"why of {job_id}: {why}")
        if not why:
            self.faults.append(f"{job_id} has no why")


class Engine:
    """One engine, with its own fault; each attempt takes some seconds."""

    def __init__(self, farm: Farm, name: str) -> None:
        self.farm, self.name = farm, name
        self.dice = random.Random(name)
        self.active: dict[str, int] = {}
        self.full_until_s = 0.0

    async def run(self) -> None:
        """Send heartbeats and do one job after another."""
        async with trio.open_nursery() as nursery:
            await self._beat()
            nursery.start_soon(self._beat_forever)
            while True:
                await trio.sleep(max(0.2, self.full_until_s - trio.current_time()))
                status, job = await self.farm.insist(
                    "POST", "/assign_job/", {"engine_id": self.name}, "Prefer: wait=60\r\n"
                )
                if status == 200:
                    await self._work(job)

    async def _beat(self) -> None:
        is_full = self.full_until_s > trio.current_time()
        jobs = [{"job_id": job_id, "attempt": n} for job_id, n in self.active.items()]
        await self.farm.insist("POST", "/engines/heartbeat", {
            "engine_id": self.name, "status": "disk-full" if is_full else "idle",
            "supported_codecs": ["h264"], "benchmark_time": 10.0, "jobs": jobs,
        })  # fmt: skip

    async def _beat_forever(self) -> None:
        while True:
            await trio.sleep(25)
            if self.name != "hanging" or trio.current_time() % 900 > 250:
                await self._beat()

    async def _work(self, job: Record) -> None:
        kind = job["labels"]["kind"]
        self.active = {job["job_id"]: job["attempt"]}
        if self.name == "hanging" and trio.current_time() % 900 < 200:
            await trio.sleep(300)  # no heartbeat either: the attempt is lost
        await trio.sleep(240 if kind == "trickling" else self.dice.uniform(5, 60))
        await self._report(job, *self._outcome(kind))
        self.active = {}

    def _outcome(self, kind: str) -> tuple[str, Record]:
        """Return how the engine reports what it has found, as the table of failures wants it."""
        if self.name == "full-disk" and self.dice.random() < 0.5:
            self.full_until_s = trio.current_time() + 60
            return "fail", {"error_class": "transient", "error_message": "its disk is full"}
        if kind == "shared" and self.name == "no-share":
            words = "it has no /share"
            return "fail", {"error_class": "not_allowed", "error_message": words}
        if kind == "trickling":
            words = "the source sends 1 byte a second"
            return "fail", {"error_class": "transient", "error_message": words}
        if kind in ("refused place", "bad source"):
            words = KINDS[kind][1]
            return "fail", {"error_class": "input", "error_message": words}
        url = "http://h/" + "x" * (100_000 if kind == "refused report" else 10)
        return "complete", {"output_url": url}

    async def _report(self, job: Record, kind: str, body: Record) -> None:
        sender = {"attempt": job["attempt"], "engine_id": self.name}
        path = f"/jobs/{job['job_id']}"
        status, _ = await self.farm.insist("POST", f"{path}/{kind}", body | sender)
        if status == 400:
            self.farm.counts["refused reports"] += 1
            words = "the result cannot be reported"
            instead = {"error_class": "input", "error_message": words}
            status, _ = await self.farm.insist("POST", f"{path}/fail", instead | sender)
        if status not in (200, 409):
            self.farm.faults.append(f"{self.name} reports {kind}: {status}")


def ended_wrongly(farm: Farm) -> list[str]:
    """Compare every acknowledged job with how one of its kind must end."""
    stored = {key: msgspec.json.decode(job) for key, job in farm.memory.tables["jobs"].items()}
    faults: list[str] = []
    for job_id, (kind, _) in farm.submitted.items():
        job = stored.get(job_id)
        status, words = KINDS[kind]
        if job is None:
            faults.append(f"{job_id} was acknowledged, and is lost")
        elif job["status"] != status or not re.search(words, job["error_message"] or ""):
            faults.append(f"{kind}: {job['status']}, {job['error_message']}")
    if len(stored) != len(farm.submitted):
        faults.append(f"{len(stored)} jobs are stored, {len(farm.submitted)} were acknowledged")
    return faults


async def chaos() -> Farm:
    """Run all actors until every job has ended, and return what they have seen."""
    farm, ready = Farm(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(farm.reign, ready)
        await ready.wait()
        for actor in (farm.set_the_clock, farm.send_wrong_keys, farm.watch):
            nursery.start_soon(actor)
        for name in ENGINES:
            nursery.start_soon(Engine(farm, name).run)
        await farm.submit()
        with trio.move_on_after(ENDS_WITHIN_S + 600):
            while len(farm.ended_s) < len(farm.submitted):
                await trio.sleep(30)
        nursery.cancel_scope.cancel()
    return farm


@pytest.mark.slow
def test_whatever_happens_at_the_same_time_every_job_ends_as_it_should() -> None:
    scheduler._r.seed(15)  # as in `replay`: the same run each time
    farm = trio.run(chaos, clock=MockClock(autojump_threshold=0))
    longest_s = max(farm.ended_s.values())
    sys.stderr.write(f"\nchaos: {len(farm.submitted)} jobs, the longest {longest_s:.0f} s, ")
    sys.stderr.write(", ".join(f"{n} {what}" for what, n in farm.counts.items()) + "\n")
    assert farm.faults + ended_wrongly(farm) == []
    assert farm.counts["clock steps"] > 10
    assert farm.counts["power cuts"] >= 2
    assert farm.counts["refused reports"] > 3
    assert min(farm.counts[what] for what in ("wrong key 401", "whys", "503")) > 20
