"""A site for whole-system tests: a real daemon that can die and come back, and a real engine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
from tests.daemon import kit
from tests.engine.daemon import wait_until
from tests.engine.measured import Measured
from tests.torture.victim import free_port

WAIT_S = 60.0


class Site:
    """One daemon on a port that it keeps, and one engine that works for it."""

    def __init__(self, folder: Path, measured: Measured, stack: ExitStack) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir()
        measured.keep_in(self.work)
        self._stack = stack
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.daemon = self.start_daemon()
        self.engine: subprocess.Popen[bytes] | None = None

    def start_daemon(self) -> kit.Running:
        """Start the daemon on what the last one left."""
        flags = ["--port", str(self._port), "--state-file", "state.json", "--media-dir", "media"]
        flags += ["--set", "plugin.media-store.reserve_bytes=0"]
        self.daemon = self._stack.enter_context(kit.start(self.folder, *flags))
        return self.daemon

    def start_engine(self, *flags: str, before: list[str] | None = None) -> None:
        """Start an engine, through the words of `before` where there are any."""
        argv = [*(before or []), sys.executable, "-m", "distconv_engine.main"]
        argv += ["--server", self.url, "--work-dir", str(self.work), "--engine-id", "e1"]
        argv += ["--heartbeat-s", "0.5", "--disk-reserve-mb", "0", *flags]
        environ = {**os.environ, "DISTCONV_API_KEY": kit.KEY}
        environ["DISTCONV_FFMPEG"] = os.environ.get("DISTCONV_TEST_FFMPEG", "")
        with (self.folder / "engine.log").open("ab") as log:
            self.engine = subprocess.Popen(
                argv, env=environ, stdout=log, stderr=log, start_new_session=True
            )

    def stop_engine(self) -> None:
        """`kill -9`."""
        if self.engine is not None:
            os.killpg(self.engine.pid, signal.SIGKILL)
            self.engine.wait()
            self.engine = None

    def freeze_daemon(self) -> None:
        """Its port still takes connections, but nobody answers: a black hole."""
        self.daemon.process.send_signal(signal.SIGSTOP)

    def thaw_daemon(self) -> None:
        """It answers again, also what was asked meanwhile."""
        self.daemon.process.send_signal(signal.SIGCONT)

    # ------------------------------------------------------------------------------------- asking

    def submit(self, **fields: Any) -> str:
        """Submit a job; return its id."""
        return str(self.daemon.submit(**{"job_size": 1.0, **fields})["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """Return the job."""
        found: dict[str, Any] = self.ask(f"/jobs/{job_id}")
        return found

    def ask(self, path: str) -> Any:
        """GET `path`."""
        status, body = self.daemon.ask("GET", path)
        assert status == 200, body
        return json.loads(body)

    def wait_for_end(self, job_id: str, timeout_s: float = WAIT_S) -> dict[str, Any]:
        """Wait until the job has ended; return it."""
        ends = ("completed", "failed_permanently", "cancelled")
        wait_until(lambda: self.job(job_id)["status"] in ends, timeout_s)
        return self.job(job_id)

    def wait_for_encode(self, job_id: str) -> None:
        """Wait until the job's ffmpeg encodes."""
        wait_until(lambda: (self.job(job_id)["progress"] or {}).get("phase") == "encode", WAIT_S)

    def ffmpegs(self) -> list[psutil.Process]:
        """Return what the engine runs."""
        assert self.engine is not None
        return psutil.Process(self.engine.pid).children(recursive=True)

    def undelivered_reports(self) -> list[Path]:
        """Return the reports that lie in the engine's outbox."""
        return list((self.work / "outbox").glob("*.json"))


@contextmanager
def open_site(folder: Path, measured: Measured) -> Generator[Site]:
    """Open a site in `folder`; whatever still runs is killed at the end."""
    with ExitStack() as stack:
        site = Site(folder, measured, stack)
        try:
            yield site
        finally:
            site.stop_engine()
