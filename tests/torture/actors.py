"""Run clients and engines that keep books of what was acknowledged and what was tried.

The books are the audit's only evidence. An engine works for a few seconds at most, keeps its work
when the daemon is killed, and repeats every report until it is answered.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import trio
from tests.torture.wire import Gone, Wire

RETRY_S = 0.05


@dataclass
class Books:
    """Everything that was acknowledged, by all actors."""

    tried: dict[str, dict[str, Any]] = field(default_factory=dict[str, Any])
    """Submission uid to the body that was sent, whether it was answered or not."""
    submitted: dict[str, str] = field(default_factory=dict[str, str])
    """Submission uid to the job id that a 2xx gave."""
    assignments: dict[tuple[str, int], set[str]] = field(
        default_factory=dict[tuple[str, int], set[str]]
    )
    """(job, attempt) to the engines to which it was assigned."""
    completed: dict[str, list[tuple[int, str]]] = field(
        default_factory=dict[str, list[tuple[int, str]]]
    )
    """Job to the (attempt, output) whose completion was acknowledged."""
    failed: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    """Job to the attempts whose failure was acknowledged."""
    cancelled: set[str] = field(default_factory=set[str])
    refused: list[str] = field(default_factory=list[str])
    """Replies that no actor expects."""
    spanning: int = 0
    """Attempts during which the daemon was killed at least once."""


class Submitter:
    """A client that submits jobs, each under an idempotency key, until each is answered."""

    def __init__(self, name: str, port: int, books: Books, seed: int, jobs: int) -> None:
        self._name, self._books, self._jobs = name, books, jobs
        self._random = random.Random(seed)
        self._wire = Wire(port)

    async def run(self) -> None:
        """Submit all jobs; cancel a few."""
        try:
            await self._submit_all()
        finally:
            self._wire.hang_up()

    async def _submit_all(self) -> None:
        for number in range(self._jobs):
            uid = f"{self._name}-{number}"
            body = {
                "source_url": f"http://example.com/{uid}.mp4",
                "target_codec": self._random.choice(["h264", "vp9", "hevc"]),
                "job_size": self._random.choice([10, 60, 150]),
                "max_retries": 2,
                "priority": self._random.choice([0, 0, 0, 1, 2]),
                "labels": {"uid": uid},
            }
            self._books.tried[uid] = body
            status, job = await _until_answered(
                partial(self._wire.call, "POST", "/jobs/", body, {"Idempotency-Key": uid})
            )
            if status != 200:
                self._books.refused.append(f"submit {uid}: {status} {job}")
                continue
            job_id = cast("dict[str, Any]", job)["job_id"]
            self._books.submitted[uid] = job_id
            if self._random.random() < 0.05:
                await self._cancel(job_id)

    async def _cancel(self, job_id: str) -> None:
        status, job = await _until_answered(lambda: self._wire.call("DELETE", f"/jobs/{job_id}"))
        if status == 200:
            self._books.cancelled.add(job_id)
        elif status != 409:
            self._books.refused.append(f"cancel {job_id}: {status} {job}")


class Engine:
    """A virtual engine: heartbeats, asks, works, reports; never loses its active attempts."""

    def __init__(self, name: str, port: int, books: Books, seed: int, deaths: list[float]) -> None:
        self._name, self._books, self._deaths = name, books, deaths
        self._random = random.Random(seed)
        self._wire, self._beats = Wire(port), Wire(port)
        self._speed_s = self._random.uniform(10, 300)
        self._active_attempts: dict[str, int] = {}
        self._stopped: set[tuple[str, int]] = set()
        """Attempts with the verdict to stop."""

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                await self._beat()
                nursery.start_soon(self._beat_forever)
                while True:
                    await self._work_once()
        finally:
            self._wire.hang_up()
            self._beats.hang_up()

    @property
    def is_at_work(self) -> bool:
        """Whether it still has something to report."""
        return bool(self._active_attempts)

    async def _beat_forever(self) -> None:
        while True:
            await self._beat()
            await trio.sleep(0.5)

    async def _beat(self) -> None:
        assigned = [{"job_id": j, "attempt": n} for j, n in self._active_attempts.items()]
        beat = {
            "engine_id": self._name,
            "status": "busy" if assigned else "idle",
            "benchmark_time": self._speed_s,
            "streaming_support": self._speed_s < 100,
            "jobs": assigned,
        }
        status, reply = await _until_answered(
            lambda: self._beats.call("POST", "/engines/heartbeat", beat)
        )
        if status != 200:
            self._books.refused.append(f"heartbeat {self._name}: {status} {reply}")
            return
        for verdict in cast("dict[str, Any]", reply)["jobs"]:
            if verdict["verdict"] != "keep":
                self._stopped.add((verdict["job_id"], verdict["attempt"]))

    async def _work_once(self) -> None:
        try:
            status, job = await self._wire.call(
                "POST", "/assign_job/", {"engine_id": self._name}, {"Prefer": "wait=2"}
            )
        except Gone:
            await trio.sleep(RETRY_S)
            return
        if status == 404:  # it was killed before this engine was on disk
            await self._beat()
        elif status == 503:  # it is starting again
            await trio.sleep(RETRY_S)
        elif status == 200:
            await self._encode(cast("dict[str, Any]", job))
        elif status != 204:
            self._books.refused.append(f"assign {self._name}: {status} {job}")
            await trio.sleep(RETRY_S)

    async def _encode(self, job: dict[str, Any]) -> None:
        job_id, attempt = job["job_id"], job["attempt"]
        self._books.assignments.setdefault((job_id, attempt), set()).add(self._name)
        self._active_attempts[job_id] = attempt
        began_s = trio.current_time()
        await trio.sleep(self._random.expovariate(4.0))
        if any(began_s < death_s for death_s in self._deaths):
            self._books.spanning += 1
        if (job_id, attempt) not in self._stopped:
            await self._report(job_id, attempt)
        del self._active_attempts[job_id]
        await self._beat()

    async def _report(self, job_id: str, attempt: int) -> None:
        common = {"attempt": attempt, "engine_id": self._name}
        output = f"http://example.com/{job_id}-{attempt}-{self._name}.mp4"
        if self._random.random() < 0.1:
            path, body = "fail", {"error_message": f"boom {attempt}", "error_class": "engine"}
        else:
            path, body = "complete", {"output_url": output}
        for _ in range(self._random.choice([1, 1, 2])):  # a repeated report changes nothing
            status, reply = await _until_answered(
                lambda: self._wire.call("POST", f"/jobs/{job_id}/{path}", body | common)
            )
            if status == 200 and path == "complete":
                entry = (attempt, output)
                known = self._books.completed.setdefault(job_id, [])
                if entry not in known:
                    known.append(entry)
            elif status == 200:
                self._books.failed.setdefault(job_id, set()).add(attempt)
            elif status != 409:
                self._books.refused.append(f"{path} {job_id}: {status} {reply}")


async def _until_answered(
    call: Callable[[], Awaitable[tuple[int, object]]],
) -> tuple[int, object]:
    """Repeat a call until a reply comes that is not 503."""
    while True:
        try:
            status, reply = await call()
        except Gone:
            await trio.sleep(RETRY_S)
            continue
        if status != 503:
            return status, reply
        await trio.sleep(RETRY_S)
