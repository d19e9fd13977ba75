"""Simulate liars: engines that also send false messages, none of which may change anything.

A liar uses its own name (a daemon cannot distinguish two engines with the same key), and the answer
must be a refusal; if a lie changed something all the same, the audit finds it, since no book has
it.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio
from tests.simulation.engines import Character, Engine
from tests.simulation.wire import Gone
from tests.simulation.world import World, wall_ms

PRIVATE = "X-API-Key: test-key\r\nHost: d\r\n"


class Liar(Engine):
    """An engine that sometimes lies."""

    def __init__(self, world: World, character: Character) -> None:
        super().__init__(world, character)
        self._imagination = world.dice(f"{self.name} lies")

    async def run(self) -> None:
        """Work like any engine, and lie."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(super().run)
            while not self.world.is_dusk:
                await trio.sleep(self._imagination.expovariate(1 / 60))
                lie = self._imagination.choice(_LIES)
                await lie(self)

    def another(self) -> tuple[str, int] | None:
        """Return a (job, attempt) that was assigned to another engine."""
        gossip = self.world.gossip
        for _ in range(8):
            if gossip:
                # Mostly a recent one, sometimes one that ended long ago.
                recent = self._imagination.random() < 0.8
                first = max(0, len(gossip) - 60) if recent else 0
                job_id, attempt, engine = gossip[self._imagination.randrange(first, len(gossip))]
                if engine != self.name:
                    return job_id, attempt
        return None

    async def _say(self, what: str, path: str, body: object, *right: int) -> None:
        status, _ = await self.world.insist("POST", path, body)
        self.books.expect(f"lie-{what}", status, *right)

    async def report_others_attempt(self) -> None:
        """Report on an attempt of another engine, running or ended."""
        found = self.another()
        if found is None:
            return
        job_id, attempt = found
        sender = {"attempt": attempt, "engine_id": self.name}
        kind = self._imagination.choice(["complete", "fail", "release", "progress"])
        await self._say(f"theft/{kind}", f"/jobs/{job_id}/{kind}", _false(kind) | sender, 409)

    async def report_invented_attempt(self) -> None:
        """Report on an attempt that never existed: a future one, or number 0."""
        found = self.another()
        if found is None:
            return
        job_id, attempt = found
        number = self._imagination.choice([0, attempt + 50, 10**9])
        sender = {"attempt": number, "engine_id": self.name}
        kind = self._imagination.choice(["complete", "fail", "release", "progress"])
        await self._say(f"invention/{kind}", f"/jobs/{job_id}/{kind}", _false(kind) | sender, 409)

    async def report_unknown_job(self) -> None:
        """Report on a job that never existed."""
        kind = self._imagination.choice(["complete", "fail", "release", "progress"])
        job_id = self._imagination.choice(["1_1", "no-such-job", "%00", "1700000000000000_999999"])
        body = _false(kind) | {"attempt": 1, "engine_id": self.name}
        await self._say(f"phantom/{kind}", f"/jobs/{job_id}/{kind}", body, 404, 400)

    async def claim_others_jobs(self) -> None:
        """Name other engines' attempts in a heartbeat; none of them may get `keep`."""
        found = self.another()
        if found is None:
            return
        job_id, attempt = found
        known = [{"job_id": j, "attempt": n} for j, n in self.active.items()]
        claims: list[dict[str, Any]] = [
            {"job_id": job_id, "attempt": attempt},
            {"job_id": job_id, "attempt": attempt + 1},
            {"job_id": "no-such-job", "attempt": 1},
        ]
        if job_id not in self.active:
            claims.append({"job_id": job_id})
        beat = {"engine_id": self.name, "jobs": known + claims}
        sent_ms = wall_ms()
        status, reply = await self.world.insist("POST", "/engines/heartbeat", beat)
        self.books.expect("lie-claims", status, 200)
        if status != 200:
            return
        verdicts = msgspec.json.decode(reply)["jobs"]
        for claim, verdict in zip(claims, verdicts[len(known) :], strict=True):
            wanted = "unknown" if claim["job_id"] == "no-such-job" else "cancel"
            if verdict["verdict"] == "keep":
                # Correct only if the claim is true by chance: it was assigned that very attempt.
                self.apply(verdict, sent_ms)
            elif verdict["verdict"] != wanted:
                self.books.faults.append(f"{self.name} claimed {claim} and got {verdict}")

    async def ask_as_nobody(self) -> None:
        """Ask for work under names that no engine has."""
        name = self._imagination.choice(["nobody", "a/b", "", "x" * 200, "a b"])
        await self._say("nobody", "/assign_job/", {"engine_id": name}, 404, 400)

    async def say_nonsense(self) -> None:
        """Send a body that is invalid in one of many ways."""
        path = self._imagination.choice(
            ["/jobs/", "/jobs/1_1/complete", "/jobs/1_1/fail", "/engines/heartbeat", "/assign_job/"]
        )
        body = self._imagination.choice(
            [b"{", b"[]", b"\xff\xfe", b'{"engine_id": 5, "job_size": -1}', b"[" * 5000, b"nul"]
        )
        await self._say("nonsense", path, body, 400)

    async def say_too_much(self) -> None:
        """Send a body over the limit, or one of the wrong type."""
        sort = self._imagination.randrange(4)
        head = f"POST /jobs/ HTTP/1.1\r\n{PRIVATE}"
        if sort == 0:
            data = (
                f"{head}Content-Type: application/json\r\nContent-Length: 9999999\r\n\r\n".encode()
            )
            await self._shout("oversized", data + b"{" * 2000, 413)
        elif sort == 1:
            data = f"{head}Content-Type: text/html\r\nContent-Length: 2\r\n\r\n{{}}".encode()
            await self._shout("type", data, 415)
        elif sort == 2:
            await self._shout("garbage", b"\x16\x03\x01 this is no HTTP\r\n\r\n", 400)
        else:
            stranger = "POST /engines/heartbeat HTTP/1.1\r\nHost: d\r\nX-API-Key: guessed\r\n"
            body = f'{{"engine_id": "{self.name}", "slots": 64}}'
            data = f"{stranger}Content-Length: {len(body)}\r\n\r\n{body}".encode()
            await self._shout("key", data, 401)

    async def _shout(self, what: str, data: bytes, *right: int) -> None:
        try:
            status, _ = await self.world.wire.exchange(data)
        except Gone:
            return
        self.books.expect(f"lie-{what}", status, *right)


def _false(kind: str) -> dict[str, Any]:
    bodies: dict[str, dict[str, Any]] = {
        "complete": {"output_url": "http://example.com/stolen.mp4"},
        "fail": {"error_message": "lie: stolen", "error_class": "input"},
        "release": {"reason": "lie: stolen"},
        "progress": {"fraction": 0.9},
    }
    return bodies[kind]


_LIES: list[Callable[[Liar], Awaitable[None]]] = [
    Liar.report_others_attempt,
    Liar.report_others_attempt,
    Liar.report_invented_attempt,
    Liar.report_unknown_job,
    Liar.claim_others_jobs,
    Liar.ask_as_nobody,
    Liar.say_nonsense,
    Liar.say_too_much,
]
