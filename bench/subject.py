"""Run the processes under load, baseline and daemon, and write state files for the daemon."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from distconvd.model import Job, JobStatus

_START = "import sys; from distconvd.main import main; sys.exit(main())"
CREATED_US = 1_700_000_000_000_000


class Process:
    """A server that listens on `port`."""

    def __init__(
        self, arguments: list[str], port: int, *, env: Mapping[str, str] | None = None
    ) -> None:
        self.port = port
        began_s = time.perf_counter()
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE, env=env)
        self._wait_until_ready(arguments[0])
        self.start_s = time.perf_counter() - began_s

    def _wait_until_ready(self, program: str) -> None:
        """Wait for a line on its standard output."""
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError(f"{program} did not start")

    @property
    def rss_bytes(self) -> int:
        """Its present resident memory."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    def stop(self) -> None:
        """Send SIGTERM, and wait for the end."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def bare() -> Iterator[Process]:
    """Run the baseline."""
    port = free_port()
    process = Process([sys.executable, "-m", "bench.bare", str(port)], port)
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def daemon(folder: Path, *sets: str, site: Path | None = None) -> Iterator[Process]:
    """Run `distconvd` with the json store at `folder/state.json`, fsync on, no access log.

    `site`: a directory with another revision of our packages (`bench.checkout`); None: this one.
    """
    port = free_port()
    arguments = [sys.executable, "-P", "-c", _START, "--port", str(port)]
    arguments += ["--state-file", str(folder / "state.json"), "--log-level", "WARN"]
    arguments += ["--set", "dispatch.finished_jobs_max=2000000"]
    arguments += ["--set", "dispatch.finished_age_s=1e12"]
    arguments += [part for text in sets for part in ("--set", text)]
    env = None if site is None else {**os.environ, "PYTHONPATH": str(site)}
    process = Process(arguments, port, env=env)
    try:
        yield process
    finally:
        process.stop()


def write_state(folder: Path, *, finished: int = 0, stuck: int = 0) -> None:
    """Write a state file with ended jobs, and pending ones that no engine can run."""
    with (folder / "state.json").open("wb") as file:
        file.write(b'{"jobs":{\n')
        for number in range(finished + stuck):
            job = _job(number, is_stuck=number >= finished)
            comma = b",\n" if number else b""
            file.write(comma + b'"%s":' % job.job_id.encode() + msgspec.json.encode(job))
        file.write(b'\n},"engines":{}}\n')


def _job(number: int, *, is_stuck: bool) -> Job:
    created_ms = CREATED_US // 1000 + number
    return Job(
        job_id=f"{CREATED_US + number}_{number}",
        source_url=f"http://example.com/videos/clip-{number}.mp4",
        target_codec="nobody-knows-it" if is_stuck else "h264",
        job_size=100.5,
        status=JobStatus.PENDING if is_stuck else JobStatus.COMPLETED,
        created_at=created_ms,
        updated_at=created_ms,
        finished_at=None if is_stuck else created_ms,
    )


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
