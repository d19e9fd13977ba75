"""Call the daemon's HTTP API, and decide for every reply whether another try is worth it.

Error handling: `DaemonUnavailable` means try again (no connection, timeout, 408, 425, 429, 5xx);
`Rejected` means that the daemon has decided (any other 4xx). Nothing else is raised, whatever the
daemon does.
"""

from typing import Protocol, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from distconv_engine.files import describe_fault
from distconv_engine.key import with_key
from distconvd.model import (
    AssignRequest,
    BenchmarkReport,
    Heartbeat,
    HeartbeatReply,
    Job,
    ProgressReport,
    Verdict,
)

T = TypeVar("T")
_TRY_AGAIN = frozenset({408, 425, 429})
_TIMEOUT = httpx.Timeout(10.0, connect=5.0)
_PAST = {"complete": "completed", "fail": "failed", "release": "released"}
"""The name of a report's message on the websocket."""
NOT_ASSIGNED = "urn:distconv:problem:not-assigned"
"""The problem of a report on a job that never was this engine's: no other key would help."""
_POLL_SLACK_S = 15.0
"""How much later than promised the reply to a long poll may arrive."""


class DaemonUnavailable(Exception):
    """The daemon cannot answer now; the same call may succeed later."""


class Rejected(Exception):
    """The daemon has rejected the call, and would do so again."""

    def __init__(self, status: int, detail: str, problem_type: str = "") -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.is_key_trouble = status in (401, 403) and problem_type != NOT_ASSIGNED
        """The call is valid, the key is not: a person has to fix that, and then it may succeed."""


class Link(Protocol):
    """What `DaemonApi` uses of the websocket (`distconv_engine.daemon_link.websocket`)."""

    async def maybe_ask(self, kind: str, job_id: str | None, body: bytes) -> bytes | None:
        """Send a message and return the answer's body; None: send it by HTTP."""
        ...


class DaemonApi:
    """One method for each call that an engine makes.

    What both transports can carry goes over `link` while that is open. All of it may be sent twice,
    so a link that breaks in between does no harm.
    """

    def __init__(self, client: httpx.AsyncClient, server: str, api_key: str | None) -> None:
        self._client = client
        self._base = server.rstrip("/")
        self._headers = with_key({"Content-Type": "application/json"}, api_key)
        self.link: Link | None = None

    async def heartbeat(self, beat: Heartbeat) -> HeartbeatReply:
        """Register, renew leases, and return what to cancel."""
        body = msgspec.json.encode(beat)
        content = await self._send("heartbeat", None, "/engines/heartbeat", body)
        return _decode(content, HeartbeatReply)

    async def benchmark(self, report: BenchmarkReport) -> None:
        """Report how fast this engine is."""
        await self._post("/engines/benchmark_result", msgspec.json.encode(report))

    async def assign(self, engine_id: str, wait_s: float) -> Job | None:
        """Ask for work and wait up to `wait_s` for it; None if there is none."""
        content = await self._post(
            "/assign_job/",
            msgspec.json.encode(AssignRequest(engine_id)),
            headers={"Prefer": f"wait={wait_s:g}"},
            timeout=httpx.Timeout(wait_s + _POLL_SLACK_S, connect=5.0),
        )
        return _decode(content, Job) if content else None

    async def progress(self, job_id: str, report: ProgressReport) -> Verdict:
        """Report how far an attempt is; returns whether it is still wanted."""
        path = f"/jobs/{quote(job_id, safe='')}/progress"
        body = msgspec.json.encode(report)
        return _decode(await self._send("progress", job_id, path, body), Verdict)

    async def report(self, job_id: str, kind: str, body: bytes) -> None:
        """Send a terminal report (`complete`, `fail` or `release`), already encoded."""
        path = f"/jobs/{quote(job_id, safe='')}/{kind}"
        await self._send(_PAST[kind], job_id, path, body)

    async def _send(self, kind: str, job_id: str | None, path: str, body: bytes) -> bytes:
        if self.link is not None:
            answer = await self.link.maybe_ask(kind, job_id, body)
            if answer is not None:
                return answer
        return await self._post(path, body)

    async def _post(
        self,
        path: str,
        body: bytes,
        *,
        headers: dict[str, str] | None = None,
        timeout: httpx.Timeout = _TIMEOUT,  # noqa: ASYNC109 - httpx's own, a limit for each step
    ) -> bytes:
        try:
            reply = await self._client.post(
                self._base + path,
                content=body,
                headers=[*self._headers.raw, *httpx.Headers(headers).raw],
                timeout=timeout,
                follow_redirects=False,  # the key goes to the daemon and nowhere else
            )
        except httpx.TransportError as error:
            raise DaemonUnavailable(describe_fault(error)) from error
        if reply.is_success:
            return reply.content
        if reply.is_redirect:
            raise DaemonUnavailable(
                f"it redirects to {reply.headers.get('Location')}; check --server"
            )
        problem = _problem_of(reply)
        raise fault_of(reply.status_code, problem.detail or reply.reason_phrase, problem.type)


def fault_of(status: int, detail: str, problem_type: str) -> DaemonUnavailable | Rejected:
    """Return the error that says whether another try is worth it."""
    if status >= 500 or status in _TRY_AGAIN:
        return DaemonUnavailable(f"the daemon answered {status}")
    return Rejected(status, detail, problem_type)


class _Problem(msgspec.Struct):
    detail: str = ""
    type: str = ""


def _problem_of(reply: httpx.Response) -> _Problem:
    try:
        return msgspec.json.decode(reply.content, type=_Problem)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return _Problem()  # not from the daemon: a proxy's page, perhaps


def _decode(content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        # Not from a daemon of this version: a proxy's page, perhaps. It may pass.
        raise DaemonUnavailable(f"the daemon's answer cannot be decoded: {error}") from error
