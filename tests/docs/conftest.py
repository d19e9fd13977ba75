"""A real daemon for a page's examples, and the files that they name."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

KEY = "your_api_key"
"""The key that the documents use."""


@dataclass(frozen=True)
class Daemon:
    """A running daemon and the folder that commands are run in."""

    port: int
    folder: Path


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Start a daemon with further flags; it is stopped when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def start(*flags: str) -> Daemon:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-c", "from distconvd.main import main; main()"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--api-key", KEY]
        command += ["--state-file", str(tmp_path / "state.json"), *flags]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("DISTCONV_")}
        with (tmp_path / "daemon.log").open("w") as log:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=tmp_path, env=environ
            )
        assert process.stdout is not None
        printed = process.stdout.readline()
        if "ready" not in printed:
            end(process)
            pytest.fail((tmp_path / "daemon.log").read_text())
        started.append(process)
        return Daemon(port, tmp_path)

    yield start
    for process in started:
        assert end(process) == 0, (tmp_path / "daemon.log").read_text()


def end(process: subprocess.Popen[str]) -> int:
    """Stop a daemon as an operator does; return its exit code."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout=20)
    finally:
        process.kill()
        process.communicate()
