"""What operators and machines ask of the daemon itself: is it alive, is it ready, what is in it."""

from collections.abc import Callable

import msgspec

from distconvd import __version__
from distconvd.api.replies import encoded
from distconvd.dispatch.queries import counts
from distconvd.dispatch.transaction import Transaction
from distconvd.edge.http import Request, Response, Route
from distconvd.ledger import Ledger
from distconvd.metrics import Metrics
from distconvd.plugins import LoadedPlugin


class Readiness(msgspec.Struct):
    """Why the daemon is not ready, by cause; ready when there is none."""

    causes: dict[str, str]


class OperationsApi:
    """Handlers of `/`, `/livez`, `/readyz`, `/version`, `/status`, `/metrics`, `/plugins`."""

    def __init__(
        self,
        ledger: Ledger,
        metrics: Metrics,
        plugins: list[LoadedPlugin],
        readiness: Callable[[], Readiness],
        uptime_s: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._plugins = plugins
        self._readiness = readiness
        self._uptime_s = uptime_s

    def routes(self) -> list[Route]:
        """Return the rows of the route table."""
        return [
            Route("GET", "/", self.ok, "public", summary="Basic health check"),
            Route("GET", "/livez", self.ok, "public", summary="Is the process alive"),
            Route("GET", "/readyz", self.ready, "public", summary="Does it take work"),
            Route("GET", "/version", self.version, "read", summary="Version"),
            Route("GET", "/status", self.status, "read", summary="Counts at a glance"),
            Route("GET", "/metrics", self.metrics, "read", summary="Prometheus metrics"),
            Route("GET", "/plugins", self.plugins, "read", summary="Loaded plugins"),
        ]

    async def ok(self, request: Request) -> Response:
        """`GET /`: the original's health check."""
        return Response(200, b"OK", "text/plain")

    async def ready(self, request: Request) -> Response:
        """`GET /readyz`: 503 with the causes while changes cannot be accepted."""
        causes = self._readiness().causes
        body = msgspec.json.encode({"ready": not causes, "causes": causes})
        return Response(503 if causes else 200, body)

    async def version(self, request: Request) -> Response:
        """`GET /version`."""
        return encoded({"name": "distconvd", "version": __version__})

    async def status(self, request: Request) -> Response:
        """`GET /status`."""
        found = await self._ledger.execute(counts)
        return encoded(
            {
                "version": __version__,
                "uptime_s": round(self._uptime_s(), 1),
                "jobs": found.jobs,
                "queue": {"ready": found.queue_ready, "delayed": found.queue_delayed},
                "engines": found.engines,
                "not_ready": self._readiness().causes,
            }
        )

    async def metrics(self, request: Request) -> Response:
        """`GET /metrics`."""
        text = await self._ledger.execute(self._render)
        return Response(200, text, self._metrics.content_type)

    def _render(self, tx: Transaction) -> bytes:
        """Render as a read of everything, so that no gauge shows what is not on disk."""
        tx.saw_everything = True
        return self._metrics.render()

    async def plugins(self, request: Request) -> Response:
        """`GET /plugins`."""
        return encoded(self._plugins)
