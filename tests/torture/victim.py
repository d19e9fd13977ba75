"""Run the daemon under test as a process that is killed and started again."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import trio
from tests.torture.wire import Gone, Wire


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Victim:
    """A `distconvd` that keeps its port and its store when it is killed."""

    def __init__(self, folder: Path, store: str, settings: dict[str, object]) -> None:
        self.port = free_port()
        self.kills = 0
        self._log = folder / "distconvd.log"
        self._command = str(Path(sys.executable).parent / "distconvd")
        self._place = ["--store", store, "--state-file", str(folder / "state")]
        self._arguments = [self._command, "--port", str(self.port), *self._place]
        self._arguments += ["--log-level", "WARN"]
        for key, value in settings.items():
            self._arguments += ["--set", f"{key}={value}"]
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and wait until `/readyz` says that it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._arguments, stdout=log, stderr=log)
        wire = Wire(self.port)
        with trio.fail_after(30):
            while True:
                if self._process.poll() is not None:
                    raise AssertionError(f"the daemon died: {self._log.read_text()[-2000:]}")
                try:
                    if (await wire.call("GET", "/readyz"))[0] == 200:
                        break
                except Gone:
                    pass  # it does not listen yet
                await trio.sleep(0.02)
        wire.hang_up()

    async def kill(self) -> None:
        """Kill it with SIGKILL, whatever it is doing."""
        assert self._process is not None
        self._process.kill()
        await trio.to_thread.run_sync(self._process.wait)
        self.kills += 1

    async def audit(self) -> list[str]:
        """Return what `distconvd audit` finds in the daemon while it runs, else in its store."""
        assert self._process is not None
        runs = self._process.poll() is None
        flags = ["--url", f"http://127.0.0.1:{self.port}"] if runs else self._place
        done = await trio.run_process(
            [self._command, "audit", *flags], capture_stdout=True, capture_stderr=True, check=False
        )
        return [] if done.returncode == 0 else (done.stdout + done.stderr).decode().splitlines()

    async def stop(self) -> int:
        """Send SIGTERM; return the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        with trio.fail_after(40):
            return await trio.to_thread.run_sync(self._process.wait)

    def slay(self) -> None:
        """Kill it at the end of a test if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
