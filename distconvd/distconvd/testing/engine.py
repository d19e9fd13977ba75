"""Provide virtual engines: they talk to a daemon as real ones do, but encode nothing.

    engine = VirtualEngine(daemon, "e1", tags=["gpu"], benchmark_time=3.0)
    await engine.beat()
    job = await engine.must_ask()
    await engine.complete(job)

or, for a farm: `nursery.start_soon(engine.work, 60.0)`, which takes job after job.
"""

from collections.abc import Callable
from typing import Any

import trio

from distconvd.testing.daemon import Client, Daemon, Reply

JobFields = dict[str, Any]
"""A job as on the wire."""


class VirtualEngine:
    """See the module.

    Args:
        daemon: the daemon to work for.
        engine_id: the engine's name.
        client: another client than the daemon's own, for example one with an engine's key.
        fields: fields of its heartbeats; by default it is idle, with a benchmark of 10 s.

    Attributes:
        done: ids of the jobs that `work` has completed, in order.
    """

    def __init__(
        self, daemon: Daemon, engine_id: str, *, client: Client | None = None, **fields: Any
    ) -> None:
        self.engine_id = engine_id
        self.done: list[str] = []
        self._client = client or daemon.client
        self._fields = {"status": "idle", "benchmark_time": 10.0, **fields}

    async def beat(self, **fields: Any) -> dict[str, Any]:
        """Send a heartbeat; `fields` are kept for later ones."""
        self._fields |= fields
        return _ok(
            await self._client.post(
                "/engines/heartbeat", {"engine_id": self.engine_id, **self._fields}
            )
        )

    async def ask(self, wait_s: int = 0) -> JobFields | None:
        """Ask for a job; wait up to `wait_s` for one."""
        headers = {"prefer": f"wait={wait_s}"} if wait_s else {}
        reply = await self._client.post("/assign_job/", {"engine_id": self.engine_id}, **headers)
        return None if reply.status == 204 else _ok(reply)

    async def must_ask(self, wait_s: int = 0) -> JobFields:
        """Ask for a job; fail if there is none."""
        job = await self.ask(wait_s)
        assert job is not None, f"there is no job for engine {self.engine_id}"
        return job

    async def complete(self, job: JobFields, output_url: str = "file:///out.mp4") -> JobFields:
        """Report a job as completed; return its new state."""
        return await self._report("complete", job, output_url=output_url)

    async def fail(
        self, job: JobFields, message: str = "it broke", error_class: str = "engine"
    ) -> JobFields:
        """Report a job as failed; return its new state."""
        return await self._report("fail", job, error_message=message, error_class=error_class)

    async def release(self, job: JobFields, reason: str = "released") -> JobFields:
        """Release a job; return its new state."""
        return await self._report("release", job, reason=reason)

    async def work(self, seconds: float | Callable[[JobFields], float], wait_s: int = 30) -> None:
        """Take and complete job after job until cancelled; each takes `seconds`."""
        await self.beat()
        while True:
            job = await self.ask(wait_s)
            if job is not None:
                await trio.sleep(seconds(job) if callable(seconds) else seconds)
                await self.complete(job)
                self.done.append(job["job_id"])
            await self.beat()

    async def _report(self, what: str, job: JobFields, **fields: Any) -> JobFields:
        body = {"attempt": job["attempt"], "engine_id": self.engine_id, **fields}
        answer = _ok(await self._client.post(f"/jobs/{job['job_id']}/{what}", body))
        found: JobFields = answer["job"]
        return found


def _ok(reply: Reply) -> dict[str, Any]:
    assert reply.status == 200, (reply.status, reply.body)
    found: dict[str, Any] = reply.json()
    return found
