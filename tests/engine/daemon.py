"""Run a small daemon and file server on real sockets, for the engine's tests.

It keeps what it receives, assigns the jobs that a test queued, and has faults on request: it can be
unavailable, lose its replies, break off downloads, claim wrong lengths and change files between
requests.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

KEY = "engine-key"


@dataclass
class Served:
    """One file that is served, and the faults with which it is served."""

    content: bytes
    etag: str | None = '"v1"'
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)
    """Bytes to send before the connection breaks, for each request in turn."""
    claim_length: int | None = None
    """Content-Length to send instead of the true one."""
    etags: list[str] = field(default_factory=list)
    """ETags for each request in turn; empty: always `etag`."""
    requests: list[str | None] = field(default_factory=list)
    """The Range header of each request."""
    cut_at: int | None = None
    """No byte from here on is ever sent, whatever the headers say."""
    statuses: list[int] = field(default_factory=list)
    """Statuses to answer with instead, in turn."""


class FakeDaemon:
    """State of the fake; all access is under `changed`."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.queue: list[dict[str, Any]] = []
        self.assigned: dict[str, dict[str, Any]] = {}
        self.beats: list[dict[str, Any]] = []
        self.benchmarks: list[dict[str, Any]] = []
        self.benchmark_requested_at: int | None = None
        self.progress: list[tuple[str, dict[str, Any]]] = []
        self.reports: list[tuple[str, str, dict[str, Any]]] = []
        self.verdicts: dict[str, str] = {}
        self.paused: set[str] = set()
        self.progress_status: dict[str, int] = {}
        self.report_status: list[int] = []
        self.media: dict[str, bytes] = {}
        self.puts: list[tuple[str, dict[str, str]]] = []
        self.put_statuses: list[int] = []
        self.files: dict[str, Served] = {}
        self.corrupt_put: Callable[[bytes], bytes] = bytes
        self.break_put_after = 0
        self.chunks = 0
        self.broken_puts = 0
        self.is_unavailable = False
        self.lose_replies_to: str | None = None
        self.url = ""

    def submit(self, job_id: str, source_url: str, codec: str, **fields: Any) -> None:
        job = {
            "job_id": job_id,
            "source_url": source_url,
            "target_codec": codec,
            "status": "assigned",
            "attempt": 1,
            **fields,
        }
        with self.changed:
            self.queue.append(job)
            self.changed.notify_all()

    def wait_for(self, predicate: Callable[["FakeDaemon"], object], timeout_s: float = 30) -> None:
        with self.changed:
            if not self.changed.wait_for(lambda: predicate(self), timeout_s):
                raise AssertionError(f"not seen within {timeout_s} s; reports: {self.reports}")

    def report_of(self, job_id: str) -> tuple[str, dict[str, Any]] | None:
        return next(((k, b) for j, k, b in self.reports if j == job_id), None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    daemon: FakeDaemon

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _reply(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        raw = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(raw)))
            self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(raw)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.daemon.is_unavailable:
            self.close_connection = True
            return
        if self.headers.get("X-API-Key") != KEY:
            self._reply(401, {"detail": "Unauthorized"})
            return
        body = json.loads(raw or b"{}")
        lose = self.daemon.lose_replies_to
        answer = self._answer(unquote(self.path), body)
        if lose is not None and re.search(lose, self.path):
            self.close_connection = True
            return
        try:
            self._reply(*answer)
        except BrokenPipeError:
            self.close_connection = True  # an engine that was stopped waits for no answer

    def _answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        with self.daemon.changed:
            try:
                return self._route(path, body)
            finally:
                self.daemon.changed.notify_all()

    def _route(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        daemon = self.daemon
        if path == "/engines/heartbeat":
            daemon.beats.append(body)
            reply: dict[str, Any] = {"message": "Heartbeat received", "jobs": self._verdicts(body)}
            if daemon.benchmark_requested_at is not None:
                reply["benchmark_requested_at"] = daemon.benchmark_requested_at
            return 200, reply
        if path == "/engines/benchmark_result":
            daemon.benchmarks.append(body)
            if body.get("requested_at") == daemon.benchmark_requested_at:
                daemon.benchmark_requested_at = None
            return 200, {"message": "ok"}
        if path == "/assign_job/":
            return self._assign()
        match = re.match(r"^/jobs/(.+)/(progress|complete|fail|release)$", path)
        assert match, path
        job_id, kind = match[1], match[2]
        if kind == "progress":
            daemon.progress.append((job_id, body))
            status = daemon.progress_status.get(job_id, 200)
            return status, self._verdict(job_id, body["attempt"])
        status = daemon.report_status.pop(0) if daemon.report_status else 200
        daemon.reports.append((job_id, kind, body))
        return status, {"message": "ok", "job": {}}

    def _verdicts(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        return [self._verdict(job["job_id"], job["attempt"]) for job in body.get("jobs", [])]

    def _verdict(self, job_id: str, attempt: int) -> dict[str, Any]:
        word = self.daemon.verdicts.get(job_id, "keep")
        paused = job_id in self.daemon.paused
        return {"job_id": job_id, "attempt": attempt, "verdict": word, "paused": paused}

    def _assign(self) -> tuple[int, Any]:
        prefer = self.headers.get("Prefer", "")
        match = re.match(r"^wait=([\d.]+)$", prefer)
        wait_s = float(match[1]) if match else 0.0
        self.daemon.changed.wait_for(
            lambda: self.daemon.queue or self.daemon.is_unavailable, min(wait_s, 5)
        )
        if not self.daemon.queue or self.daemon.is_unavailable:
            return 204, None
        return 200, self.daemon.queue.pop(0)

    def _body(self) -> bytes | None:
        """Read a body of either kind; None when it breaks off."""
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        content = bytearray()
        while line := self.rfile.readline():
            size = int(line, 16)
            content += self.rfile.read(size)
            self.rfile.readline()
            self.daemon.chunks += 1
            if self.daemon.break_put_after and len(content) >= self.daemon.break_put_after:
                return None
            if not size:
                return bytes(content)
        return None

    def do_PUT(self) -> None:
        content = self._body()
        if content is None:
            self.daemon.broken_puts += 1
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.daemon.changed:
            self.daemon.puts.append((self.path, headers))
            status = self.daemon.put_statuses.pop(0) if self.daemon.put_statuses else 201
            digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
            said = headers.get("repr-digest")
            if said != f"sha-256=:{digest}:" and "content-length" in headers:
                status = 400
            if status == 201:
                self.daemon.media[unquote(self.path)] = content
                self.daemon.files[unquote(self.path)] = Served(self.daemon.corrupt_put(content))
            self.daemon.changed.notify_all()
        self._reply(status, {"url": self.path})

    def do_GET(self) -> None:
        served = self.daemon.files.get(unquote(self.path))
        if served is None:
            self._reply(404, {"detail": "no such file"})
            return
        asked = self.headers.get("Range")
        served.requests.append(asked)
        if served.statuses:
            self._reply(served.statuses.pop(0))
            return
        etag = served.etags.pop(0) if served.etags else served.etag
        start, stop, status = 0, len(served.content), 200
        match = re.match(r"^bytes=(\d+)-(\d*)$", asked or "")
        if match and served.ranges and self.headers.get("If-Range", etag) == etag:
            start, status = int(match[1]), 206
            stop = min(int(match[2]) + 1, stop) if match[2] else stop
        body = served.content[start:stop]
        total = len(served.content)
        self.send_response(status)
        if etag:
            self.send_header("ETag", etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{total}")
        length = len(body) if served.claim_length is None else served.claim_length
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if served.cut_at is not None and stop > served.cut_at:
            body = body[: max(0, served.cut_at - start)]
            self.close_connection = True
        elif served.break_after:
            body = body[: served.break_after.pop(0)]
            self.close_connection = True
        elif length != len(body):
            self.close_connection = True
        self.wfile.write(body[: max(length, 0)] if length < len(body) else body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore it: an engine that was stopped resets its connections."""


@contextmanager
def running_daemon() -> Iterator[FakeDaemon]:
    state = FakeDaemon()
    handler = type("Handler", (_Handler,), {"daemon": state})
    server = _Server(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def wait_until(predicate: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Poll for a state that only another process knows."""
    end = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > end:
            raise AssertionError("not seen in time")
        time.sleep(0.02)
