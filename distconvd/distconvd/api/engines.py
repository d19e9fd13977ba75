"""Serve `engines` and `assign_job`: heartbeats, benchmarks, and requests for work."""

import trio

from distconvd.api.decode import decode
from distconvd.api.known_fields import unknown_fields
from distconvd.api.openapi import engines as docs
from distconvd.api.replies import array_of, encoded, job_reply, json_reply, wait_s_of
from distconvd.api.waiting import require_still_authorized, wait_while_authorized
from distconvd.auth import require_engine
from distconvd.core.event_bus import EventBus
from distconvd.core.ledger import Ledger
from distconvd.dispatch import engines
from distconvd.dispatch.assign import add_waiter, ask, assign_any, has_unacked
from distconvd.dispatch.queries import get_engine, list_engines
from distconvd.dispatch.records import decode_job
from distconvd.dispatch.unacknowledged import release_unacked
from distconvd.edge.http import Request, Response, Route
from distconvd.errors import Unauthorized
from distconvd.model import AssignRequest, BenchmarkReport, Heartbeat


class EnginesApi:
    """Handlers of `/engines/…` and `/assign_job/`."""

    def __init__(self, ledger: Ledger, event_bus: EventBus) -> None:
        self._ledger = ledger
        self._event_bus = event_bus

    def routes(self) -> list[Route]:
        """Return the rows of the route table."""
        engine = "/engines/{engine_id}"
        return [
            Route(
                "POST", "/engines/heartbeat", self.heartbeat, "engine", "whole",
                summary="Send a heartbeat", doc=docs.HEARTBEAT,
            ),
            Route(
                "POST", "/engines/benchmark_result", self.benchmark, "engine", "whole",
                summary="Submit a benchmark", doc=docs.BENCHMARK,
            ),
            Route(
                "POST", "/assign_job", self.assign, "engine", "whole",
                summary="Ask for a job", doc=docs.ASSIGN,
            ),
            Route("GET", "/engines", self.list, "read", summary="List engines", doc=docs.LIST),
            Route("GET", engine, self.get, "read", summary="Get an engine", doc=docs.GET),
            Route(
                "DELETE", engine, self.remove, "admin", summary="Remove an engine", doc=docs.CHANGE
            ),
            Route(
                "POST", f"{engine}/benchmark", self.ask_for_benchmark, "admin",
                summary="Ask for a new benchmark", doc=docs.CHANGE,
            ),
            Route(
                "POST", f"{engine}/drain", self.drain, "admin",
                summary="Drain an engine", doc=docs.CHANGE,
            ),
            Route(
                "POST", f"{engine}/resume", self.resume, "admin",
                summary="Resume an engine", doc=docs.CHANGE,
            ),
        ]  # fmt: skip

    async def heartbeat(self, request: Request) -> Response:
        """`POST /engines/heartbeat`."""
        beat = decode(request.body, Heartbeat)
        request.log["engine_id"] = beat.engine_id
        require_engine(request.principal, beat.engine_id)
        extra = unknown_fields(request.body, Heartbeat)
        return encoded(await self._ledger.execute(engines.heartbeat, beat, extra))

    async def benchmark(self, request: Request) -> Response:
        """`POST /engines/benchmark_result`."""
        report = decode(request.body, BenchmarkReport)
        request.log["engine_id"] = report.engine_id
        require_engine(request.principal, report.engine_id)
        return encoded({"message": await self._ledger.execute(engines.benchmark, report)})

    async def assign(self, request: Request) -> Response:
        """`POST /assign_job/`; with an engine id and `Prefer: wait=N` a long poll."""
        asked = decode(request.body or b"{}", AssignRequest)
        require_engine(request.principal, asked.engine_id)
        if asked.engine_id is None:
            record = await self._ledger.execute(assign_any)
        else:
            request.log["engine_id"] = asked.engine_id
            record = await self._ledger.execute(ask, asked.engine_id)
            wait_s = wait_s_of(request.headers)
            if record is None and wait_s:
                record = await self._wait_for_work(request, asked.engine_id, wait_s)
        if record is None:
            return Response(204)
        job = decode_job(record)
        request.log |= {"job_id": job.job_id, "attempt": job.attempt}
        return job_reply(record)

    async def list(self, request: Request) -> Response:
        """`GET /engines/`."""
        return json_reply(array_of(await self._ledger.execute(list_engines)))

    async def get(self, request: Request) -> Response:
        """`GET /engines/{id}`."""
        return json_reply(await self._ledger.execute(get_engine, _engine_id(request)))

    async def remove(self, request: Request) -> Response:
        """`DELETE /engines/{id}`."""
        return json_reply(await self._ledger.execute(engines.remove, _engine_id(request)))

    async def ask_for_benchmark(self, request: Request) -> Response:
        """`POST /engines/{id}/benchmark`."""
        engine_id = _engine_id(request)
        return json_reply(await self._ledger.execute(engines.ask_for_benchmark, engine_id))

    async def drain(self, request: Request) -> Response:
        """`POST /engines/{id}/drain`."""
        engine_id = _engine_id(request)
        return json_reply(await self._ledger.execute(engines.drain, engine_id, draining=True))

    async def resume(self, request: Request) -> Response:
        """`POST /engines/{id}/resume`; this also ends a quarantine."""
        engine_id = _engine_id(request)
        return json_reply(await self._ledger.execute(engines.drain, engine_id, draining=False))

    async def _wait_for_work(self, request: Request, engine_id: str, wait_s: float) -> bytes | None:
        """Wait until a job is assigned to the engine; None on timeout or if the client has gone.

        A job that is assigned at the moment when the client leaves is not lost: it stays
        unacknowledged, and the engine gets it when it asks again. If the key has been revoked
        meanwhile, the job is released; raises `Unauthorized` then.
        """
        try:
            return await self._wait_in_long_poll(request, engine_id, wait_s)
        except Unauthorized:
            self._ledger.execute_nowait(release_unacked, engine_id)
            raise

    async def _wait_in_long_poll(
        self, request: Request, engine_id: str, wait_s: float
    ) -> bytes | None:
        deadline_s = trio.current_time() + wait_s
        while (left_s := deadline_s - trio.current_time()) > 0:
            with self._event_bus.expect("assigned", engine_id) as assigned:
                self._ledger.execute_nowait(add_waiter, engine_id, 1)
                try:
                    if not self._ledger.execute_nowait(has_unacked, engine_id):
                        await wait_while_authorized(request, assigned, left_s)
                finally:
                    self._ledger.execute_nowait(add_waiter, engine_id, -1)
            if request.link is not None and request.link.over:
                return None
            if self._ledger.execute_nowait(has_unacked, engine_id):
                require_still_authorized(request)
                record = await self._ledger.execute(ask, engine_id)
                if record is not None:
                    return record
            # Else another request of this engine has got the job; this one continues to wait.
        return None


def _engine_id(request: Request) -> str:
    engine_id = request.params["engine_id"]
    request.log["engine_id"] = engine_id
    return engine_id
