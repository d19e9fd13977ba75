"""Provide a minimal fake daemon: jobs in a dict, each of which advances when requested.

It handles `httpx` requests and responses, so it serves a mock transport and, through `served`, a
real socket.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import httpx
import msgspec

from distconv_client import Client
from distconv_client.retry import RetryPolicy
from distconvd.model import (
    Attempt,
    AttemptOutcome,
    Job,
    JobResult,
    JobStatus,
    Progress,
    Submission,
)

Step = Callable[[Job], Job]


def running(fraction: float, phase: str = "encode") -> Step:
    def step(job: Job) -> Job:
        now = Progress(fraction=fraction, fps=50.0, speed=2.0, eta_seconds=9.0, phase=phase)
        return msgspec.structs.replace(
            job, status=JobStatus.ASSIGNED, assigned_engine="attic-1", attempt=1, progress=now
        )

    return step


def completed(job: Job) -> Job:
    return msgspec.structs.replace(
        job,
        status=JobStatus.COMPLETED,
        assigned_engine="attic-1",
        output_url="file:///srv/out/a%20b.mp4",
        result=JobResult(size_bytes=250_000, source_size_bytes=1_000_000, video_frames=120),
    )


def failed(job: Job) -> Job:
    return msgspec.structs.replace(
        job, status=JobStatus.FAILED_PERMANENTLY, error_message="The source is cut off at 3.2 s."
    )


LIFE: tuple[Step, ...] = (running(0.1), running(0.6), running(1.0, "verify"), completed)


def problem(status: int, detail: str, **extra: Any) -> httpx.Response:
    document = {"type": "about:blank", "title": "No", "status": status, "detail": detail, **extra}
    headers = {"Content-Type": "application/problem+json"}
    return httpx.Response(status, content=msgspec.json.encode(document), headers=headers)


def found(value: object, **headers: str) -> httpx.Response:
    return httpx.Response(
        200,
        content=msgspec.json.encode(value),
        headers={"Content-Type": "application/json", **headers},
    )


class FakeDaemon:
    """Stores jobs; each request for one advances it by a step of `life`.

    `faults` come first, one for each request: a response, or an exception to raise.
    """

    def __init__(self, *, key: str | None = None, life: tuple[Step, ...] = LIFE) -> None:
        self.jobs: dict[str, Job] = {}
        self.engines: list[dict[str, Any]] = []
        self.faults: list[httpx.Response | Exception] = []
        self.requests: list[httpx.Request] = []
        self.slept_s: list[float] = []
        self.life = life
        self._key = key
        self._steps: dict[str, int] = {}
        self._submitted: dict[str, str] = {}

    def client(self, server: str = "http://daemon.test", api_key: str | None = None) -> Client:
        return Client(
            server,
            api_key,
            retry=RetryPolicy(jitter=lambda: 1.0),
            transport=httpx.MockTransport(self.handle),
            sleep=self.slept_s.append,
        )

    def add(self, **fields: Any) -> Job:
        given = {"source_url": "file:///srv/in/a.mov", "target_codec": "h265", **fields}
        job = Job(job_id=given.pop("job_id", f"1763840000000000_{len(self.jobs) + 1}"), **given)
        self.jobs[job.job_id] = job
        return job

    def sent(self, method: str) -> list[httpx.Request]:
        return [request for request in self.requests if request.method == method]

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, Exception):
                raise fault
            return fault
        if self._key is not None and request.headers.get("X-API-Key") != self._key:
            return problem(401, "Unauthorized")
        raw = request.url.raw_path.decode().partition("?")[0]
        parts = [unquote(part) for part in raw.strip("/").split("/")]
        if parts[0] == "jobs":
            return self._jobs(request, parts[1:])
        if parts[0] == "engines":
            return self._engines(request, parts[1:])
        return (
            found({"version": "0.1.0"}) if parts[0] in {"version", "readyz"} else problem(404, "")
        )

    def _jobs(self, request: httpx.Request, parts: list[str]) -> httpx.Response:
        if not parts:
            return self._submit(request) if request.method == "POST" else self._list(request)
        if parts[0] not in self.jobs:
            return problem(404, "Job not found")
        return self._one(request.method, parts[0], parts[1:], request.content)

    def _submit(self, request: httpx.Request) -> httpx.Response:
        key = request.headers["Idempotency-Key"]
        if key not in self._submitted:
            submission = msgspec.json.decode(request.content, type=Submission)
            if submission.target_codec == "wrong":
                return problem(400, "is no codec.", field="target_codec")
            fields = {name: getattr(submission, name) for name in submission.__struct_fields__}
            self._submitted[key] = self.add(**fields).job_id
        return found(self.jobs[self._submitted[key]])

    def _list(self, request: httpx.Request) -> httpx.Response:
        query = request.url.params
        fitting = [
            job
            for job in self.jobs.values()
            if query.get("status", job.status) == job.status
            and query.get("engine", job.assigned_engine) == job.assigned_engine
            and query.get("codec", job.target_codec) == job.target_codec
            and query.get("label", "") in {"", *(f"{k}:{v}" for k, v in job.labels.items())}
        ]
        if query.get("order") == "desc":
            fitting.reverse()
        start = int(query.get("cursor", "0"))
        end = start + int(query.get("limit", len(fitting)))
        more = {"X-Next-Cursor": str(end)} if end < len(fitting) else {}
        return found(fitting[start:end], **more)

    def _one(self, method: str, job_id: str, rest: list[str], body: bytes) -> httpx.Response:
        job = self.jobs[job_id]
        if rest == ["attempts"]:
            attempt = Attempt(
                1, "attic-1", 1000, 4000, AttemptOutcome.FAILED, log_tail="a\n\x1b[31mb"
            )
            return found([attempt] if job.attempt else [])
        if rest == ["why"]:
            return found({"job_id": job_id, "status": job.status, "summary": "All are busy."})
        if rest == ["retry"]:
            return self._move(
                job, JobStatus.PENDING, legal=job.status not in {"pending", "assigned"}
            )
        if method == "PATCH":
            change = msgspec.json.decode(body)
            self.jobs[job_id] = msgspec.structs.replace(job, **change)
            return found(self.jobs[job_id])
        if method == "DELETE":
            return self._move(job, JobStatus.CANCELLED, legal=job.status in {"pending", "assigned"})
        return found(self._step(job))

    def _move(self, job: Job, status: JobStatus, *, legal: bool) -> httpx.Response:
        if not legal:
            return problem(409, f"The job is {job.status}.")
        self.jobs[job.job_id] = msgspec.structs.replace(job, status=status)
        return found(self.jobs[job.job_id])

    def _step(self, job: Job) -> Job:
        number = self._steps.get(job.job_id, 0)
        if number < len(self.life) and job.status in {JobStatus.PENDING, JobStatus.ASSIGNED}:
            self._steps[job.job_id] = number + 1
            self.jobs[job.job_id] = self.life[number](job)
        return self.jobs[job.job_id]

    def _engines(self, request: httpx.Request, parts: list[str]) -> httpx.Response:
        if not parts:
            return found(self.engines)
        known = [engine for engine in self.engines if engine["engine_id"] == parts[0]]
        if not known:
            return problem(404, "Engine not found")
        if parts[1:]:
            words = {"drain": "draining", "resume": "idle", "benchmark": "busy"}
            known[0]["status"] = words[parts[1]]
        return found(known[0])


@contextmanager
def served(daemon: FakeDaemon) -> Generator[str]:
    """Serve `daemon` on a loopback socket and yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = dict(self.headers.items())
            url = f"http://loopback{self.path}"
            reply = daemon.handle(httpx.Request(self.command, url, headers=headers, content=body))
            self.send_response(reply.status_code)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.content)

        do_GET = do_POST = do_DELETE = do_PATCH = answer  # noqa: N815 - http.server looks for these names

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
