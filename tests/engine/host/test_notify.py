"""Test what the engine notifies systemd of: readiness, signs of life, and its drain."""

import io
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from tests.engine.measured import Measured
from trio.testing import MockClock, wait_all_tasks_blocked

from distconv_engine.host.notify import Notifier
from distconv_engine.logs import Log, setup_logs


class Manager:
    """A service manager's socket, and what it received."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(60)
        self._socket.bind(self.name)
        self.received: list[str] = []

    def wait_for(self, state: str) -> None:
        while state not in self.received:
            self.received.append(self._socket.recv(4096).decode())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> "Manager":
    return Manager(tmp_path)


async def test_the_watchdog_is_notified_twice_in_its_interval(
    manager: Manager, mock_clock: MockClock
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "4000000"}, Log())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.watch)
        for _ in range(3):
            await wait_all_tasks_blocked()
            manager.received.clear()
            manager.wait_for("WATCHDOG=1")
            mock_clock.jump(2)
        nursery.cancel_scope.cancel()
    manager.close()


async def test_no_watchdog_is_notified_without_a_manager_or_for_another_process() -> None:
    assert Notifier({"WATCHDOG_USEC": "100", "WATCHDOG_PID": "1"}, Log()).watchdog_s is None
    with trio.fail_after(1):
        await Notifier({}, Log()).watch()


def test_a_manager_that_does_not_listen_is_logged_and_does_not_stop_the_engine(
    tmp_path: Path,
) -> None:
    stream = io.StringIO()
    setup_logs("info", "text", stream)
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}, Log()).ready()
    assert "WARNING service manager was not notified state=READY=1" in stream.getvalue().replace(
        '"', ""
    )


@pytest.mark.e2e
def test_an_engine_notifies_ready_without_its_daemon_and_extends_the_stop_timeout_for_its_drain(
    manager: Manager, measured: Measured, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    measured.keep_in(tmp_path / "work")
    environ = {
        **os.environ, "NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "200000",
        "DISTCONV_SERVER": "http://127.0.0.1:9", "DISTCONV_DRAIN_S": "500",
        "DISTCONV_DISK_RESERVE_MB": "0",
    }  # fmt: skip
    argv = [sys.executable, "-m", "distconv_engine.main", "--work-dir", str(tmp_path / "work")]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(argv, env=environ, stderr=log) as process,
    ):
        try:
            manager.wait_for("READY=1")
            manager.wait_for("WATCHDOG=1")
            process.send_signal(signal.SIGTERM)
            manager.wait_for("STOPPING=1")
            manager.wait_for("EXTEND_TIMEOUT_USEC=560000000")
            assert process.wait(30) == 0
        finally:
            process.kill()
    manager.close()
