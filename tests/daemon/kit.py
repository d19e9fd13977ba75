"""Run real daemons for tests: started as a person starts them, reached over real sockets."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KEY = "e2e-secret-key"
JOB = {"source_url": "http://example.com/input.mp4", "target_codec": "h264", "job_size": 100.5}
COMMAND = [sys.executable, "-c", "from distconvd.main import main; main()"]


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without DistConv's variables, plus the given ones."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DISTCONV_")}
    return kept | more


def run(
    *flags: str, cwd: Path, timeout_s: float = 20, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *flags], cwd=cwd, env=environment(**environ), timeout=timeout_s,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


class Running:
    """A running daemon; `start` makes one."""

    def __init__(self, process: subprocess.Popen[str], log_path: Path) -> None:
        self.process = process
        self.log_path = log_path
        self.first_line = ""
        self.port = 0

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        assert " ready on http://" in self.first_line, (self.first_line, self.log)
        self.port = int(self.first_line.rsplit(":", 1)[1])

    def connect(self, timeout_s: float = 30) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Make one request with the key; return status and body."""
        connection = self.connect()
        try:
            raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            sent = {"X-API-Key": KEY, "Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, raw, sent)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def jobs(self) -> dict[str, Any]:
        status, body = self.ask("GET", "/jobs/")
        assert status == 200
        return {job["job_id"]: job for job in json.loads(body)}

    def submit(self, **fields: Any) -> dict[str, Any]:
        status, body = self.ask("POST", "/jobs/", JOB | fields)
        assert status == 200, body
        job: dict[str, Any] = json.loads(body)
        return job

    def stop(self, timeout_s: float = 20) -> int:
        """SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL, as a power cut for the process."""
        self.process.kill()
        self.process.wait()


@contextmanager
def start(cwd: Path, *flags: str, key: str | None = KEY, **environ: str) -> Generator[Running]:
    """Run a daemon in `cwd` on a port that the system chooses; at the end kill it if it still runs."""
    log_path = cwd / f"log-{time.monotonic_ns()}"
    keyed = [] if key is None else ["--api-key", key]
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [*COMMAND, "--host", "127.0.0.1", "--port", "0", *keyed, *flags],
            cwd=cwd, env=environment(**environ), stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    running = Running(process, log_path)
    try:
        running.wait_until_ready()
        yield running
    finally:
        if process.poll() is None:
            running.kill()
        assert process.stdout is not None
        process.stdout.close()
