"""Check, by the 99th percentile of latency, that 500 slow clients do not slow down others.

Half of them send heads, half bodies, a byte now and then. Requests go alternately to two daemons, of
which one has the slow clients, so that other load on the machine affects both alike.
"""

import logging
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest
from tests.daemon import kit
from tests.daemon.kit import KEY, Running

log = logging.getLogger(__name__)

SLOW = 500
REQUESTS = 1_500
TRIES = 3
KEYED = f"Host: x\r\nX-API-Key: {KEY}\r\n"
BEGUN = [
    b"GET /livez HTTP/1.1\r\nX-Slow: ",
    f"POST /jobs/ HTTP/1.1\r\n{KEYED}Content-Length: 9000\r\n\r\n".encode(),
]


@contextmanager
def slow_clients(port: int) -> Generator[Callable[[], None]]:
    """Keep the slow clients connected; yield a function that makes the next one send a byte."""
    clients: list[socket.socket] = []
    try:
        for number in range(SLOW):
            client = socket.create_connection(("127.0.0.1", port), 20)
            clients.append(client)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(BEGUN[number % len(BEGUN)])
        turn = cycle(clients)
        yield lambda: next(turn).sendall(b"a")
    finally:
        for client in clients:
            client.close()


def ask(client: socket.socket) -> float:
    """Make one request on a kept-alive connection; return how long it took, in seconds."""
    began = time.perf_counter()
    client.sendall(f"GET /status HTTP/1.1\r\n{KEYED}\r\n".encode())
    said = client.recv(65_536)
    took = time.perf_counter() - began
    assert said.startswith(b"HTTP/1.1 200 ")
    return took


def connect(daemon: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", daemon.port), 20)


def p99(took: list[float]) -> float:
    return sorted(took)[len(took) * 99 // 100]


def measure(drip: Callable[[], None], one: socket.socket, other: socket.socket) -> float:
    """Return by what factor the slow clients raise the 99th percentile of the latency."""
    latencies: list[float] = []
    alone: list[float] = []
    for _ in range(REQUESTS):
        drip()
        latencies.append(ask(one))
        alone.append(ask(other))
    log.info(
        "p99 %.2f ms alone, %.2f ms with %d slow clients",
        p99(alone) * 1e3,
        p99(latencies) * 1e3,
        SLOW,
    )
    return p99(latencies) / p99(alone)


@pytest.mark.e2e
@pytest.mark.alone
def test_500_slow_clients_do_not_slow_the_others_threefold(tmp_path: Path) -> None:
    with_them, without = tmp_path / "with", tmp_path / "without"
    with_them.mkdir()
    without.mkdir()
    # Long enough for the slow ones to last as long as the run.
    patience_s = ("--set", "edge.head_timeout_s=120", "--set", "edge.body_timeout_s=120")
    with (
        kit.start(with_them, *patience_s) as beset,
        kit.start(without, *patience_s) as quiet,
        slow_clients(beset.port) as drip,
        connect(beset) as one,
        connect(quiet) as other,
    ):
        # The best of several runs: a slow daemon is slow in each of them, a busy machine is not.
        ratios = (measure(drip, one, other) for _ in range(TRIES))
        assert any(ratio < 3 for ratio in ratios)
        assert beset.jobs() == {}
        assert "Traceback" not in beset.log
