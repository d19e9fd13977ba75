"""500 slow clients do not slow the others: measured on a real daemon, as a ratio within one run.

A third of them send heads, a third bodies, a byte now and then; a third have asked for more than
they read. Whatever else the machine does adds to both sides, so the least disturbed round of each is
compared.
"""

import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest
from tests.daemon import kit
from tests.daemon.kit import KEY, Running

SLOW = 500
REQUESTS = 300
ROUNDS = 3
KEYED = f"Host: x\r\nX-API-Key: {KEY}\r\n"
BEGUN = [
    b"GET /livez HTTP/1.1\r\nX-Slow: ",
    f"POST /jobs/ HTTP/1.1\r\n{KEYED}Content-Length: 9000\r\n\r\n".encode(),
    f"GET /openapi.json HTTP/1.1\r\n{KEYED}\r\n".encode() * 20,
]


@contextmanager
def slow_clients(port: int) -> Generator[Callable[[], None]]:
    """Keep them connected; what is given has the next of them send its next byte."""
    clients: list[socket.socket] = []
    try:
        for number in range(SLOW):
            client = socket.create_connection(("127.0.0.1", port), 20)
            clients.append(client)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(BEGUN[number % 3])
        turn = cycle(client for number, client in enumerate(clients) if number % 3 < 2)
        yield lambda: next(turn).sendall(b"a")
    finally:
        for client in clients:
            client.close()


def ask(daemon: Running, client: socket.socket) -> float:
    """Make one request on a kept connection; return how long it took, in seconds."""
    began = time.perf_counter()
    client.sendall(f"GET /status HTTP/1.1\r\n{KEYED}\r\n".encode())
    said = client.recv(65_536)
    took = time.perf_counter() - began
    assert said.startswith(b"HTTP/1.1 200 ")
    return took


def p99(daemon: Running, between: Callable[[], None]) -> float:
    """Return the 99th percentile of the time that a request takes, in seconds."""
    with socket.create_connection(("127.0.0.1", daemon.port), 20) as client:
        took: list[float] = []
        for _ in range(REQUESTS):
            between()
            took.append(ask(daemon, client))
    return sorted(took)[REQUESTS * 99 // 100]


@pytest.mark.e2e
def test_500_slow_clients_do_not_slow_the_others_threefold(tmp_path: Path) -> None:
    patient = ("--set", "edge.head_timeout_s=60", "--set", "edge.send_timeout_s=60")
    with kit.start(tmp_path, *patient) as daemon:
        alone: list[float] = []
        beside: list[float] = []
        for _ in range(ROUNDS):
            alone.append(p99(daemon, lambda: None))
            with slow_clients(daemon.port) as drip:
                beside.append(p99(daemon, drip))
        ratio = min(beside) / min(alone)
        print(
            f"p99 alone {min(alone) * 1e3:.2f} ms, beside {SLOW} slow clients {min(beside) * 1e3:.2f} ms"
        )
        assert ratio < 3, (ratio, alone, beside)
        assert daemon.jobs() == {}
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log
