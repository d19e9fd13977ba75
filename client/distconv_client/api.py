"""Call the daemon's HTTP API: a synchronous, typed client.

It knows paths, headers and structs; it knows nothing of terminals, files or configuration.

Resource handling: a `Client` owns a pool of connections; use it in a `with` statement, or call
`close`. It may be shared by threads.

Error handling: for whatever goes wrong outside of the caller's code, every method raises a
`ClientError` (see `errors`) and nothing else.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from distconv_client.certificates import verification
from distconv_client.errors import BadInput, StillRunning
from distconv_client.key import checked_key, key_headers
from distconv_client.replies import decoded, raise_for_problem, unreachable
from distconv_client.retry import RetryPolicy, asked_delay_s, is_safe_to_repeat, says_not_now
from distconv_client.views import EngineView, StatusView, Why
from distconvd.model import TERMINAL_STATUSES, Attempt, Job, JobPatch, Submission

T = TypeVar("T")

DEFAULT_SERVER = "http://127.0.0.1:8080"
PAGE_JOBS = 500
LONG_POLL_S = 30
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


class Client:
    """One daemon, as seen by a person or a script.

    Args:
        server: base URL, such as `http://127.0.0.1:8080`; a path prefix is kept.
        api_key: sent as `X-API-Key`; None sends no key. Raises `BadInput` if a header cannot carry it.
        timeout_s: how long to wait for a connection, and for the next byte of a reply.
        retry: when and how often a request that is safe to repeat is sent again.
        transport: replaces the network, for tests.
        sleep: replaces `time.sleep`, for tests.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        api_key: str | None = None,
        *,
        timeout_s: float = 15.0,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if api_key is not None:
            checked_key(api_key, "`api_key`")
        self.server = server.rstrip("/")
        self._retry = RetryPolicy() if retry is None else retry
        self._sleep = sleep
        self._timeout_s = timeout_s
        self._http = httpx.Client(
            base_url=self.server,
            headers=key_headers(api_key),
            timeout=timeout_s,
            transport=transport,
            verify=verification(transport),
            # A proxy cannot reach our loopback, and must not see what goes there.
            trust_env=httpx.URL(self.server).host not in LOOPBACK_HOSTS,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; the client cannot be used after that."""
        self._http.close()

    # ------------------------------------------------------------------------------------- jobs

    def submit(self, submission: Submission, *, idempotency_key: str | None = None) -> Job:
        """Submit one job and return it as the daemon keeps it.

        Args:
            submission: what to do.
            idempotency_key: the daemon creates one job for a key; the same key again returns the
                same job. None makes a new one, so that a repeated request creates no second job.

        Raises `Refused` when the daemon does not accept it.
        """
        key = idempotency_key or str(uuid.uuid4())
        return self._call("POST", "/jobs/", Job, body=submission, headers={"Idempotency-Key": key})

    def job(self, job_id: str) -> Job:
        """Return one job; raises `NotFound`."""
        return self._call("GET", job_path(job_id), Job)

    def jobs(
        self,
        *,
        status: str | None = None,
        engine: str | None = None,
        codec: str | None = None,
        label: tuple[str, str] | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[Job]:
        """Iterate over the jobs that match all filters, oldest first, fetched page by page.

        Args:
            status: a status word, such as `pending`.
            engine: the ID of the engine to which the job is, or was last, assigned.
            codec: the target codec.
            label: name and value of a label of the job.
            limit: at most this many jobs; None means all.
            newest_first: start with the job that was submitted last.
        """
        filters = {"status": status, "engine": engine, "codec": codec}
        query = {name: value for name, value in filters.items() if value is not None}
        if newest_first:
            query["order"] = "desc"
        if label is not None:
            query["label"] = f"{label[0]}:{label[1]}"
        left = limit
        while left is None or left > 0:
            query["limit"] = str(PAGE_JOBS if left is None else min(left, PAGE_JOBS))
            response = self._send("GET", "/jobs/", query=query)
            page = decoded(response, list[Job])
            yield from page
            left = None if left is None else left - len(page)
            # A page may be short or empty and still not be the last: only the cursor decides. A
            # cursor that does not move would make this loop endless.
            cursor = response.headers.get("X-Next-Cursor")
            if not cursor or cursor == query.get("cursor"):
                return
            query["cursor"] = cursor

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Wait until a job has ended, and return it; its status says how it ended.

        Args:
            job_id: the job.
            timeout_s: raise `StillRunning` after this many seconds; None: no limit.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = LONG_POLL_S if deadline is None else deadline - time.monotonic()
            wait_s = max(0, min(LONG_POLL_S, int(left_s)))
            job = self._call(
                "GET",
                job_path(job_id),
                Job,
                headers={"Prefer": f"wait={wait_s}"},
                timeout_s=self._timeout_s + wait_s,
            )
            if job.status in TERMINAL_STATUSES:
                return job
            if deadline is not None and time.monotonic() >= deadline:
                raise StillRunning(
                    f"Job {job_id} is still {job.status} after {timeout_s:g} s; it continues."
                )
            if wait_s == 0:
                self._sleep(0.2)  # less than a second remains: too short for a long poll

    def cancel(self, job_id: str) -> Job:
        """Cancel a job that has not ended; raises `Conflict` when it has."""
        return self._call("DELETE", job_path(job_id), Job)

    def retry(self, job_id: str) -> Job:
        """Start an ended job again; raises `Conflict` if it has not ended."""
        return self._call("POST", f"{job_path(job_id)}/retry", Job)

    def pause(self, job_id: str) -> Job:
        """Pause a job: a pending one is not assigned; a running encode is suspended, and its
        engine keeps it. Raises `Conflict` when the job has ended."""
        return self.patch(job_id, JobPatch(paused=True))

    def resume(self, job_id: str) -> Job:
        """Resume a paused job; raises `Conflict` when it has ended."""
        return self.patch(job_id, JobPatch(paused=False))

    def patch(self, job_id: str, patch: JobPatch) -> Job:
        """Change a job that has not ended: its priority, labels, start time or pause."""
        return self._call("PATCH", job_path(job_id), Job, body=patch)

    def attempts(self, job_id: str) -> list[Attempt]:
        """Return the attempts of a job, oldest first, including the running one."""
        return self._call("GET", f"{job_path(job_id)}/attempts", list[Attempt])

    def why(self, job_id: str) -> Why:
        """Return why a job waits, or why it is on the engine where it is."""
        return self._call("GET", f"{job_path(job_id)}/why", Why)

    # ---------------------------------------------------------------------------------- engines

    def engines(self) -> list[EngineView]:
        """Return every engine that the daemon knows."""
        return self._call("GET", "/engines/", list[EngineView])

    def engine(self, engine_id: str) -> EngineView:
        """Return one engine; raises `NotFound`."""
        return self._call("GET", engine_path(engine_id), EngineView)

    def drain_engine(self, engine_id: str) -> EngineView:
        """Let an engine finish its active attempts, and assign it nothing new."""
        return self._call("POST", f"{engine_path(engine_id)}/drain", EngineView)

    def resume_engine(self, engine_id: str) -> EngineView:
        """End an engine's drain or quarantine."""
        return self._call("POST", f"{engine_path(engine_id)}/resume", EngineView)

    def benchmark_engine(self, engine_id: str) -> EngineView:
        """Have an engine repeat its benchmark once its jobs have ended."""
        return self._call("POST", f"{engine_path(engine_id)}/benchmark", EngineView)

    def forget_engine(self, engine_id: str) -> None:
        """Remove an engine from the list; it comes back with its next heartbeat."""
        self._send("DELETE", engine_path(engine_id))

    # ----------------------------------------------------------------------------------- daemon

    def version(self) -> dict[str, Any]:
        """Return the daemon's version document."""
        return self._call("GET", "/version", dict[str, Any])

    def status(self) -> StatusView:
        """Return counts of jobs, the queue and engines."""
        return self._call("GET", "/status", StatusView)

    def is_ready(self) -> bool:
        """Return whether the daemon accepts jobs (`/readyz`); False if it does not answer."""
        try:
            return self._http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    # --------------------------------------------------------------------------------- requests

    def _call(
        self,
        method: str,
        path: str,
        reply_type: type[T],
        *,
        body: msgspec.Struct | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> T:
        response = self._send(method, path, body=body, headers=headers, timeout_s=timeout_s)
        return decoded(response, reply_type)

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: msgspec.Struct | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> httpx.Response:
        request = self._http.build_request(
            method,
            path,
            params=query,
            content=None if body is None else msgspec.json.encode(body),
            headers={
                **({} if body is None else {"Content-Type": "application/json"}),
                **(headers or {}),
            },
            timeout=self._timeout_s if timeout_s is None else timeout_s,
        )
        response = self._send_patiently(request)
        raise_for_problem(response)
        return response

    def _send_patiently(self, request: httpx.Request) -> httpx.Response:
        delays = self._retry.delays_s() if is_safe_to_repeat(request) else iter(())
        while True:
            delay_s = next(delays, None)
            try:
                response = self._http.send(request)
            except httpx.TransportError as error:
                if delay_s is None:
                    raise unreachable(self.server, error) from error
            else:
                if delay_s is None or not says_not_now(response):
                    return response
                delay_s = asked_delay_s(response, delay_s)
            self._sleep(delay_s)


def job_path(job_id: str) -> str:
    """Return the path of a job."""
    return f"/jobs/{segment(job_id)}"


def engine_path(engine_id: str) -> str:
    """Return the path of an engine."""
    return f"/engines/{segment(engine_id)}"


def segment(name: str) -> str:
    """Return an ID as one path segment, whatever characters it contains."""
    if not name:
        raise BadInput("The ID must not be empty.")
    # A segment of dots alone would be removed from the path (RFC 3986, 5.2.4).
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")
