"""Serve questions about the daemon itself: is it alive, is it ready, how much work it has."""

from collections.abc import Callable

import msgspec

from distconvd import __version__
from distconvd.api.openapi import operations as docs
from distconvd.api.openapi.operations import (
    RETRY_AFTER_S,
    QueueCounts,
    ReadyReply,
    StatusReply,
    VersionReply,
)
from distconvd.api.replies import encoded
from distconvd.core.ledger import Ledger
from distconvd.core.metrics import Metrics
from distconvd.dispatch.queries import counts
from distconvd.dispatch.transaction import Transaction
from distconvd.edge.http import Request, Response, Route
from distconvd.plugin_host.loading import LoadedPlugin


class Readiness(msgspec.Struct):
    """Why the daemon is not ready, by cause; it is ready when there are none.

    Attributes:
        causes: why changes are refused.
        warnings: what a person should look at although changes are accepted.
    """

    causes: dict[str, str]
    warnings: dict[str, str] = {}


def readiness_reply(readiness: Readiness) -> Response:
    """Return the answer of `/readyz`: 200, or 503 if there are causes."""
    causes = readiness.causes
    reply = encoded(ReadyReply(not causes, causes, readiness.warnings), 503 if causes else 200)
    if causes:
        reply.headers = {"Retry-After": RETRY_AFTER_S}
    return reply


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
            Route("GET", "/", self.ok, "public", summary="Basic health check", doc=docs.OK),
            Route("GET", "/livez", self.ok, "public", summary="Check that the daemon is alive", doc=docs.OK),
            Route(
                "GET", "/readyz", self.ready, "public", summary="Check that it accepts work",
                doc=docs.READY,
            ),
            Route("GET", "/version", self.version, "read", summary="Version", doc=docs.VERSION),
            Route(
                "GET", "/status", self.status, "read", summary="Count jobs and engines",
                doc=docs.STATUS,
            ),
            Route(
                "GET", "/metrics", self.metrics, "read", summary="Prometheus metrics",
                doc=docs.METRICS,
            ),
            Route(
                "GET", "/plugins", self.plugins, "read", summary="Loaded plugins",
                doc=docs.PLUGINS,
            ),
        ]  # fmt: skip

    async def ok(self, request: Request) -> Response:
        """`GET /`: the original's health check."""
        return Response(200, b"OK", "text/plain")

    async def ready(self, request: Request) -> Response:
        """`GET /readyz`: 503 with the causes while changes cannot be accepted."""
        return readiness_reply(self._readiness())

    async def version(self, request: Request) -> Response:
        """`GET /version`."""
        return encoded(VersionReply(version=__version__))

    async def status(self, request: Request) -> Response:
        """`GET /status`."""
        found = await self._ledger.execute(counts)
        return encoded(
            StatusReply(
                __version__,
                round(self._uptime_s(), 1),
                found.jobs,
                QueueCounts(found.queue_ready, found.queue_delayed, found.queue_oldest_s),
                found.engines,
                self._readiness().causes,
            )
        )

    async def metrics(self, request: Request) -> Response:
        """`GET /metrics`."""
        text = await self._ledger.execute(self._render)
        return Response(200, text, self._metrics.content_type)

    def _render(self, tx: Transaction) -> bytes:
        """Render with everything in the read set, so that no gauge shows what is not durable."""
        tx.reads_all = True
        return self._metrics.render()

    async def plugins(self, request: Request) -> Response:
        """`GET /plugins`."""
        return encoded(self._plugins)
