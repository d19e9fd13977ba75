"""Make the usual calls of clients and engines, and read the stored state for comparison."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
import trio.testing

from distconvd.core.ledger import PROBE_KEY
from distconvd.testing.daemon import Client, Daemon, Reply

SOURCE = "http://example.com/input.mp4"


class Farm:
    """Shortcuts for the calls of clients and engines."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.client: Client = daemon.client

    async def submit(self, **fields: Any) -> dict[str, Any]:
        """Submit a job; return it."""
        body = {"source_url": SOURCE, "target_codec": "h264", **fields}
        return ok(await self.client.post("/jobs/", body))

    async def beat(self, engine_id: str = "e1", **fields: Any) -> dict[str, Any]:
        """Send a heartbeat of an idle engine with a benchmark; return the reply."""
        body = {"engine_id": engine_id, "status": "idle", "benchmark_time": 10.0, **fields}
        return ok(await self.client.post("/engines/heartbeat", body))

    async def ask(self, engine_id: str = "e1", **headers: str) -> dict[str, Any] | None:
        """Ask for work as an engine; return the job or None."""
        reply = await self.client.post("/assign_job/", {"engine_id": engine_id}, **headers)
        return None if reply.status == 204 else ok(reply)

    async def assigned(self, **fields: Any) -> dict[str, Any]:
        """Return a job that is assigned to engine e1."""
        await self.submit(**fields)
        await self.beat()
        job = await self.ask()
        assert job is not None
        return job

    async def job(self, job_id: str) -> dict[str, Any]:
        return ok(await self.client.get(f"/jobs/{job_id}"))

    def stored(self) -> tuple[dict[str, bytes], ...]:
        """Return everything that is stored, to check that nothing changed; without the ledger's
        probe, which changes with time alone."""
        state = self.daemon.parts.dispatcher.state
        meta = {key: record for key, record in state.meta.items() if key != PROBE_KEY}
        return dict(state.jobs), dict(state.engines), dict(state.attempts), meta


def ok(reply: Reply) -> dict[str, Any]:
    assert reply.status == 200, (reply.status, reply.body)
    found: dict[str, Any] = reply.json()
    return found


def problem(reply: Reply, status: int) -> dict[str, Any]:
    """Return the problem document of an error reply."""
    assert reply.status == status, (reply.status, reply.body)
    assert reply.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = reply.json()
    assert found["status"] == status
    assert found["title"]
    assert found["detail"]
    assert found["type"].startswith("urn:distconv:problem:")
    return found


class Later:
    """A request in progress."""

    def __init__(self) -> None:
        self.is_answered = False
        self.answered_at_s = 0.0
        self.scope = trio.CancelScope()
        """Cancelling this hangs up."""
        self._reply: Reply | None = None
        self._answered = trio.Event()

    async def run(self, call: Callable[..., Awaitable[Reply]], *args: Any, **headers: str) -> None:
        with self.scope:
            self._reply = await call(*args, **headers)
            self.is_answered = True
            self.answered_at_s = trio.current_time()
            self._answered.set()

    async def wait(self) -> Reply:
        """Wait for the reply and return it."""
        await self._answered.wait()
        assert self._reply is not None
        return self._reply


async def later(
    nursery: trio.Nursery, call: Callable[..., Awaitable[Reply]], *args: Any, **headers: str
) -> Later:
    """Start a request and return once all tasks wait: for a disk, a job or the clock."""
    asked = Later()
    nursery.start_soon(partial(asked.run, call, *args, **headers))
    await trio.testing.wait_all_tasks_blocked()
    return asked
