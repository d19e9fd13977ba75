"""Generate load: many keep-alive connections, one request at a time each, from one thread.

It must not distort the measurement, so it is a bare epoll loop: a connection runs a Python generator
that yields request bytes and receives the reply's (status, body). It uses no HTTP library and knows
only the replies of the daemon and the baseline (a Content-Length, or 204). Another protocol brings a
function of its own that splits its replies.
"""

import re
import selectors
import socket
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

Script = Generator[bytes, tuple[int, bytes], None]
Splitter = Callable[[bytes], "tuple[int, bytes, bytes] | None"]
"""Splits status, body and the bytes behind it off the received bytes; None: it is not complete."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Result:
    """The result of one run of a load."""

    requests: int = 0
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list[float])
    bad: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return self.requests / self.seconds

    def percentile_ms(self, part: float) -> float:
        """Return the latency below which a part (0 to 1) of the requests stayed."""
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def request(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    """Return the bytes of one request."""
    typed = "Content-Type: application/json\r\n" if body else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\n{typed}{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def split_http(received: bytes) -> tuple[int, bytes, bytes] | None:
    """Split the daemon's or the baseline's first reply off the received bytes."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = _LENGTH.search(received, 0, end)
    size = int(length.group(1)) if length else 0
    if len(received) < end + 4 + size:
        return None
    return int(received[9:12]), received[end + 4 : end + 4 + size], received[end + 4 + size :]


def drive(
    port: int,
    scripts: list[Script],
    *,
    ok: frozenset[int] = frozenset({200, 204}),
    split: Splitter = split_http,
) -> Result:
    """Run every script on a connection of its own until all have ended."""
    result = Result()
    selector = selectors.DefaultSelector()
    began_s = time.perf_counter()
    for script in scripts:
        connection = _Connection(port, script, result, ok, split)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.begin()
    while selector.get_map():
        for key, _ in selector.select(30):
            connection = key.data
            if not connection.receive():
                selector.unregister(connection.socket)
                connection.socket.close()
    result.seconds = time.perf_counter() - began_s
    return result


def repeat(data: bytes, seconds: float) -> Script:
    """Return a script that repeats one request for some seconds."""
    ends_s = time.perf_counter() + seconds
    while time.perf_counter() < ends_s:
        yield data


class _Connection:
    """One keep-alive connection and the script that it runs."""

    def __init__(
        self, port: int, script: Script, result: Result, ok: frozenset[int], split: Splitter
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._script = script
        self._result = result
        self._ok = ok
        self._split = split
        self._buffer = b""
        self._sent_s = 0.0

    def begin(self) -> None:
        """Send the first request."""
        self._send(next(self._script))

    def receive(self) -> bool:
        """Process what has arrived; return False when the script has ended."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the server closed a connection during the load")
        self._buffer += data
        found = self._split(self._buffer)
        if found is None:
            return True
        status, body, self._buffer = found
        self._result.requests += 1
        self._result.latencies_s.append(time.perf_counter() - self._sent_s)
        if status not in self._ok:
            self._result.bad.append((status, body))
        try:
            self._send(self._script.send((status, body)))
        except StopIteration:
            return False
        return True

    def _send(self, data: bytes) -> None:
        self._sent_s = time.perf_counter()
        self.socket.sendall(data)
