"""Simulate clients: they submit jobs of every sort, change them, and keep books."""

import random
from functools import partial
from typing import Any

import msgspec
import trio
from tests.simulation.books import ENDED, Submitted, Try
from tests.simulation.wire import Gone
from tests.simulation.world import World, wall_ms

LANES = 12
"""Tags of one engine each: the jobs of a lane can go only to that engine, in their order."""
CODECS = ["h264"] * 6 + ["libx264", "h265", "hevc", "libx265", "vp9", "vp9", "av1"]


class Client:
    """A client; it owns the jobs that it submits, and waits for each answer."""

    def __init__(self, world: World, number: int, jobs: int) -> None:
        self.name = f"client-{number}"
        self._world, self._books = world, world.books
        self._dice = world.dice(self.name)
        self._jobs = jobs

    async def run(self) -> None:
        """Submit all jobs and change some of them; return when that is done."""
        pause_s = self._world.size.submitting_s / max(1, self._jobs)
        async with trio.open_nursery() as nursery:
            for number in range(self._jobs):
                await trio.sleep(self._dice.expovariate(1 / pause_s))
                nursery.start_soon(self._one_job, f"{self.name}-{number}")

    async def _one_job(self, uid: str) -> None:
        dice = self._world.dice(uid)
        job = Submitted(_body(dice, uid))
        self._books.jobs[uid] = job
        await self._submit(job, uid, dice)
        if job.job_id is not None:
            await self._look_after(job, job.job_id, dice)

    async def _submit(self, job: Submitted, uid: str, dice: random.Random) -> None:
        way = dice.random()
        if way < 0.05:  # without a key: it must not be repeated
            await self._try(job, "")
            return
        key = f"Idempotency-Key: {uid}\r\n"
        if way < 0.15:
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(self._try, job, key)
        while job.job_id is None:
            if not await self._try(job, key):
                await trio.sleep(dice.uniform(0.5, 3))
        if way < 0.3:
            await self._try(job, key)
        if 0.3 < way < 0.33:
            other = job.body | {"job_size": job.body["job_size"] + 1}
            status, _ = await self._world.insist("POST", "/jobs/", other, key)
            self._books.expect("key-reuse", status, 422)

    async def _try(self, job: Submitted, key: str) -> bool:
        try:
            status, reply = await self._world.wire.call("POST", "/jobs/", job.body, key)
        except Gone:
            status, reply = 0, b""
        job.tries.append(status)
        if status != 200:
            if status:
                self._books.expect("submit", status, 200)
            return False
        if reply not in self._world.chronicle.records and b'"progress":null' in reply:
            self._books.faults.append(f"shown before it was durable: {reply!r}")
        job_id = msgspec.json.decode(reply)["job_id"]
        if job.job_id not in (None, job_id):
            self._books.faults.append(f"one key, two jobs: {job.job_id} and {job_id}")
        if job.job_id is None:
            job.job_id, job.acked_ms = job_id, wall_ms()
        return True

    async def _look_after(self, job: Submitted, job_id: str, dice: random.Random) -> None:
        chance = dice.random()
        path = f"/jobs/{job_id}"
        await trio.sleep(dice.expovariate(1 / 20))
        if chance < 0.06:
            await self._change(job, "cancel", "DELETE", path)
            if chance < 0.01:
                await self._change(job, "cancel", "DELETE", path)
        elif chance < 0.10:
            await self._change(job, "patch", "PATCH", path, {"priority": dice.choice([0, 1, 2])})
        elif chance < 0.12:
            labels = {**job.body["labels"], "note": str(dice.random())}
            await self._change(job, "patch", "PATCH", path, {"labels": labels})
        elif chance < 0.15:
            await self._change(job, "patch", "PATCH", path, {"paused": True})
            await trio.sleep(dice.uniform(1, 40))
            await self._change(job, "patch", "PATCH", path, {"paused": False})
        elif chance < 0.19:
            await self._start_again(job, job_id)
        elif chance < 0.21:
            status, _ = await self._world.insist("GET", f"{path}/why")
            self._books.expect("why", status, 200)
        elif chance < 0.23:
            status, _ = await self._world.insist("POST", f"{path}/retry")
            self._note_restart(job, status)

    async def _start_again(self, job: Submitted, job_id: str) -> None:
        """Wait until it has ended; start it again."""
        path, status = f"/jobs/{job_id}", ""
        while status not in ENDED:
            code, reply = await self._world.insist("GET", path, headers="Prefer: wait=60\r\n")
            self._books.expect("wait", code, 200)
            status = msgspec.json.decode(reply)["status"] if code == 200 else ""
        await self._change(job, "restart", "POST", f"{path}/retry")

    def _note_restart(self, job: Submitted, status: int) -> None:
        """A retry of a job that may not have ended; one that nobody answered may count."""
        self._books.expect("restart", status, 200, 409)
        if job.job_id is not None:
            job.ops += [Try("restart", job.job_id, {}, 0), Try("restart", job.job_id, {}, status)]

    async def _change(
        self, job: Submitted, kind: str, method: str, path: str, body: dict[str, Any] | None = None
    ) -> None:
        """Change a job; repeat until there is an answer, and note every try."""
        while True:
            op = Try(kind, job.job_id or "", body or {})
            job.ops.append(op)
            try:
                op.status, _ = await self._world.wire.call(method, path, body)
            except Gone:
                pass
            if op.status not in (0, 503):
                self._books.expect(kind, op.status, 200, 409)
                return
            await trio.sleep(1.5)


def _body(dice: random.Random, uid: str) -> dict[str, Any]:
    """Return a submission of any sort."""
    body: dict[str, Any] = {
        "source_url": f"http://example.com/{uid}.mp4",
        "target_codec": dice.choice(CODECS),
        "job_size": round(dice.choice([dice.uniform(0, 49), dice.uniform(50, 99), 100, 5000]), 1),
        "max_retries": dice.choice([0, 1, 2, 3]),
        "priority": dice.choice([0, 0, 0, 1, 2]),
        "labels": {"uid": uid},
    }
    sort = dice.random()
    if sort < 0.10:
        body["requires"] = ["gpu"]
    elif sort < 0.15:
        body["requires"] = ["gpu", "hdr"]
    elif sort < 0.25:
        body["requires"] = [f"lane-{dice.randrange(LANES)}"]
    if dice.random() < 0.05:
        body["not_before"] = wall_ms() + int(dice.uniform(-10, 60) * 1000)
    return body


class Operator:
    """A person who drains engines, resumes them, and removes a few."""

    def __init__(self, world: World, engines: list[str]) -> None:
        self._world, self._engines = world, engines
        self._dice = world.dice("operator")

    async def run(self) -> None:
        """Go on for as long as clients submit."""
        ends_s = trio.current_time() + self._world.size.submitting_s
        async with trio.open_nursery() as nursery:
            while trio.current_time() < ends_s:
                await trio.sleep(self._dice.uniform(1, 10))
                engine = self._dice.choice(self._engines)
                does = self._remove if self._dice.random() < 0.2 else self._drain
                nursery.start_soon(partial(does, engine))

    async def _drain(self, engine: str) -> None:
        status, _ = await self._world.insist("POST", f"/engines/{engine}/drain")
        self._world.books.expect("drain", status, 200, 404)
        await trio.sleep(20)
        status, _ = await self._world.insist("POST", f"/engines/{engine}/resume")
        self._world.books.expect("resume", status, 200, 404)

    async def _remove(self, engine: str) -> None:
        self._world.books.removed.add(engine)
        status, _ = await self._world.insist("DELETE", f"/engines/{engine}")
        self._world.books.expect("remove", status, 200, 404)
