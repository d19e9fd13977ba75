"""Simulate engines: they work, and they crash, hang, repeat themselves and report too late.

An engine is a task that sends heartbeats and a task that asks for work, and a further task for each
attempt. A crash cancels all of them in the middle of whatever they do; the engine never returns, or
returns under its name with or without its memory.
"""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import trio
from tests.simulation.books import Try
from tests.simulation.wire import Gone
from tests.simulation.world import LEASE_S, TIMEOUT_S, World, wall_ms

Manner = Literal["steady", "lane", "plain", "flaky", "hanging", "legacy", "liar"]


@dataclass(frozen=True)
class Character:
    """What an engine is like; drawn by `test_simulation` from the seed."""

    name: str
    manner: Manner
    slots: int
    codecs: list[str]
    tags: list[str]
    streams: bool
    benchmark_s: float
    polls_s: float
    """The longest pause between two requests for work; 0: long polls."""


class Engine:
    """One engine; see the module."""

    def __init__(self, world: World, character: Character) -> None:
        self.world, self.books, self.is_a = world, world.books, character
        self.name = character.name
        self.dice = world.dice(self.name)
        self.active: dict[str, int] = {}
        self._stopped: set[tuple[str, int]] = set()
        self._hung_until_s = self._beaten_s = 0.0
        self._life = trio.CancelScope()
        self._silent_s = 0.0
        self._freed = trio.Event()

    async def run(self) -> None:
        """Run, crash and return, until cancelled or gone for good."""
        lively_s = self.world.size.submitting_s * 0.7
        await trio.sleep(0 if self.is_a.manner == "steady" else self.dice.uniform(0, lively_s))
        while self._silent_s < float("inf"):
            await trio.sleep(self._silent_s)
            self._life = trio.CancelScope()
            with self._life:
                await self._live()

    async def _live(self) -> None:
        async with trio.open_nursery() as nursery:
            for job_id, attempt in self.active.items():
                nursery.start_soon(self._encode, job_id, attempt)
            await self.beat()
            nursery.start_soon(self._beat_forever)
            if self.dice.random() < 0.05:
                await self._benchmark()
            await self._ask_forever(nursery)

    # ------------------------------------------------------------------------- heartbeats

    async def beat(self) -> None:
        """Send a heartbeat with its active attempts; apply the verdicts."""
        self._beaten_s = trio.current_time()
        active = dict(self.active)
        beat: dict[str, Any] = {
            "engine_id": self.name,
            "status": "idle",
            "supported_codecs": self.is_a.codecs,
            "streaming_support": self.is_a.streams,
            "benchmark_time": self.is_a.benchmark_s,
        }
        if self.is_a.manner != "legacy":
            beat |= {"slots": self.is_a.slots, "tags": self.is_a.tags}
            beat["jobs"] = [{"job_id": j, "attempt": n} for j, n in active.items()]
        sent_ms = wall_ms()
        status, reply = await self.world.insist("POST", "/engines/heartbeat", beat)
        self.books.expect("heartbeat", status, 200)
        if status == 200:
            for verdict in msgspec.json.decode(reply)["jobs"]:
                self.apply(verdict, sent_ms)

    def apply(self, verdict: dict[str, Any], sent_ms: int) -> None:
        """Apply one verdict; `keep` for an attempt that is not its own is a fault."""
        job_id, attempt = verdict["job_id"], verdict["attempt"]
        self.books.counts[f"verdict {verdict['verdict']}"] += 1
        if verdict["verdict"] != "keep":
            self._stopped.add((job_id, attempt))
            return
        if attempt is None:
            attempt = self.world.chronicle.jobs[job_id]["attempt"]
        given = self.world.chronicle.given.get((job_id, attempt))
        if given is None or given[0] != self.name:
            self.books.faults.append(f"{self.name} may keep {verdict}, which is {given}'s")
        self.books.renewed.setdefault((job_id, attempt), []).append(sent_ms)

    async def _beat_forever(self) -> None:
        while True:
            await trio.sleep(LEASE_S / 2.5)
            await self._until_awake()
            if self.active or (self._is_long_silent and not self.is_a.polls_s):
                await self.beat()

    @property
    def _is_long_silent(self) -> bool:
        return trio.current_time() > self._beaten_s + TIMEOUT_S * 0.8

    async def _benchmark(self) -> None:
        body = {"engine_id": self.name, "benchmark_time": self.is_a.benchmark_s}
        status, _ = await self.world.insist("POST", "/engines/benchmark_result", body)
        self.books.expect("benchmark", status, 200, 404)

    async def _until_awake(self) -> None:
        while (left_s := self._hung_until_s - trio.current_time()) > 0:
            await trio.sleep(left_s)

    # ------------------------------------------------------------------------- asking

    async def _ask_forever(self, nursery: trio.Nursery) -> None:
        pause_s = 30.0
        while True:
            await self._until_awake()
            if len(self.active) >= self.is_a.slots:
                self._freed = trio.Event()
                await self._freed.wait()
            if self._is_long_silent:
                await self.beat()
            job = await self._ask()
            if job is not None:
                pause_s = 30.0
                if self.active.get(job["job_id"]) == job["attempt"]:
                    await trio.sleep(1)  # it got an active attempt again
                else:
                    self.active[job["job_id"]] = job["attempt"]
                    nursery.start_soon(self._encode, job["job_id"], job["attempt"])
            elif not self.is_a.polls_s:
                await trio.sleep(self.dice.uniform(0.1, 5))
            else:
                haste = 0.2 if self.world.is_dusk else 1
                await trio.sleep(self.dice.uniform(0.5, 1) * pause_s / haste)
                pause_s = min(self.is_a.polls_s, pause_s * 5)

    async def _ask(self) -> dict[str, Any] | None:
        """Ask for a job; sometimes hang up before the answer comes."""
        body = {"engine_id": self.name}
        if self.is_a.manner == "flaky" and self.dice.random() < 0.03:
            await self.world.wire.abandon("POST", "/assign_job/", body)
            self.books.counts["abandoned"] += 1
            return None
        headers = "" if self.is_a.polls_s else "Prefer: wait=60\r\n"
        try:
            status, reply = await self.world.wire.call("POST", "/assign_job/", body, headers)
        except Gone:
            return None
        self.books.expect("assign", status, 200, 204, 404)
        if status == 404:
            await self.beat()
        if status != 200:
            return None
        return self._given(reply)

    def _given(self, reply: bytes) -> dict[str, Any]:
        job: dict[str, Any] = msgspec.json.decode(reply)
        if reply not in self.world.chronicle.records and job["progress"] is None:
            self.books.faults.append(f"shown before it was durable: {reply!r}")
        if job["status"] != "assigned" or job["assigned_engine"] != self.name:
            self.books.faults.append(f"{self.name} was given {reply!r}")
        known = self.books.assignments.setdefault((job["job_id"], job["attempt"]), set())
        if not known:
            self.world.gossip.append((job["job_id"], job["attempt"], self.name))
        known.add(self.name)
        return job

    # ------------------------------------------------------------------------- working

    async def _encode(self, job_id: str, attempt: int) -> None:
        """Work on one attempt until it ends in some way."""
        self.world.at_work += 1
        try:
            await self._work(job_id)
            if (job_id, attempt) not in self._stopped or self.dice.random() < 0.1:
                await self._report(job_id, attempt)
            if self.active.get(job_id) == attempt:
                del self.active[job_id]
            self._freed.set()
            if self.is_a.manner == "liar" or self.dice.random() < 0.1:
                await self.beat()
        finally:
            self.world.at_work -= 1

    async def _work(self, job_id: str) -> None:
        await trio.sleep(min(200, self.dice.expovariate(1 / 15)))
        chance = self.dice.random()
        if self.is_a.manner == "flaky" and chance < 0.35:
            self._crash(chance)
            await trio.lowlevel.checkpoint()
        elif chance < {"hanging": 0.5, "lane": 0.04}.get(self.is_a.manner, 0.0):
            self.books.counts["hang"] += 1
            self._hung_until_s = trio.current_time() + self.dice.uniform(0.5, 3) * LEASE_S
        elif chance > 0.8 and self.is_a.manner != "legacy":
            await self._report_progress(job_id)
        await self._until_awake()

    def _crash(self, chance: float) -> None:
        self.books.counts["crash"] += 1
        self._silent_s = float("inf") if chance < 0.1 else self.dice.expovariate(1 / 60)
        if chance < 0.2:
            self.active.clear()
        self._life.cancel()

    async def _report_progress(self, job_id: str) -> None:
        attempt = self.active.get(job_id)
        if attempt is None:
            return
        body = {"attempt": attempt, "engine_id": self.name, "fraction": self.dice.random()}
        sent_ms = wall_ms()
        status, reply = await self.world.insist("POST", f"/jobs/{job_id}/progress", body)
        self.books.expect("progress", status, 200, 409)
        if status == 200:
            self.apply(msgspec.json.decode(reply), sent_ms)
        elif status == 409:
            self._stopped.add((job_id, attempt))

    async def _report(self, job_id: str, attempt: int) -> None:
        kind, body = self._verdict_of_ffmpeg(job_id, attempt)
        if self.is_a.manner != "legacy":
            body |= {"attempt": attempt, "engine_id": self.name}
        status = await self.report(kind, job_id, body)
        self.books.expect(kind, status, 200, 409)
        if self.is_a.manner == "legacy":
            return
        if self.dice.random() < 0.15:
            again = await self.report(kind, job_id, body)
            # Accepted twice or refused twice: nothing has changed that could change the answer…
            self.books.expect(f"{kind} repeated after {status}", again, *self._again(status))
        if status == 200 and self.dice.random() < 0.1:
            late = {"attempt": attempt, "engine_id": self.name, "fraction": 0.5}
            code, _ = await self.world.insist("POST", f"/jobs/{job_id}/progress", late)
            self.books.expect("late progress", code, 409)
        if status == 200 and (self.is_a.manner == "liar" or self.dice.random() < 0.03):
            await self._contradict(kind, job_id, body)

    def _again(self, status: int) -> tuple[int, ...]:
        """… except that a person may restart the job: a repetition after that is too late."""
        return (200, 409) if status == 200 else (409,)

    def _verdict_of_ffmpeg(self, job_id: str, attempt: int) -> tuple[str, dict[str, Any]]:
        roll = self.dice.random()
        words = f"boom {self.name} {attempt} {self.dice.random():.9f}"
        if roll < 0.03 and self.is_a.manner != "legacy":
            return "release", {"reason": words}
        if roll < 0.2 and self.is_a.manner != "lane":
            kinds = ["engine", "verification", "transient", "transient", "input", "lost"]
            kinds += ["not_allowed", "no_access", "output"]
            body = {"error_message": words}
            if self.is_a.manner != "legacy":
                body["error_class"] = self.dice.choice(kinds)
            return "fail", body
        return "complete", {"output_url": f"http://example.com/{job_id}-{attempt}-{self.name}.mp4"}

    async def _contradict(self, kind: str, job_id: str, body: dict[str, Any]) -> None:
        """Report the opposite of the last report: whatever happened since, the answer is 409."""
        sender = {"attempt": body["attempt"], "engine_id": self.name}
        lies: list[tuple[str, dict[str, Any]]] = [
            ("complete", {"output_url": f"http://example.com/lie-{self.dice.random()}.mp4"}),
            ("fail", {"error_message": f"lie {self.dice.random()}", "error_class": "input"}),
        ]
        if kind != "release":
            lies.append(("release", {"reason": "lie"}))
        for path, lie in lies:
            status, _ = await self.world.insist("POST", f"/jobs/{job_id}/{path}", lie | sender)
            self.books.expect(f"contradiction {kind}/{path}", status, 409)

    async def report(self, kind: str, job_id: str, body: dict[str, Any]) -> int:
        """Report until there is an answer; every try is in the books."""
        while True:
            note: Try = self.books.begin_report(kind, job_id, body)
            try:
                note.status, reply = await self.world.wire.call(
                    "POST", f"/jobs/{job_id}/{kind}", body
                )
            except Gone:
                reply = b""
            if note.status not in (0, 503):
                self._check_reply(note.status, reply)
                return note.status
            await trio.sleep(1.5)

    def _check_reply(self, status: int, reply: bytes) -> None:
        if status == 200:
            record = bytes(msgspec.json.decode(reply, type=dict[str, msgspec.Raw])["job"])
            if record not in self.world.chronicle.records and b'"progress":null' in record:
                self.books.faults.append(f"shown before it was durable: {record!r}")
