"""Measure how long an assignment takes to its engine by websocket, beyond the commit.

The reply to a submission waits for the same commit as the assignment, since both are one decision;
so does the ack of a completion that frees an engine. The time from one to the other is the cost of
push. All engines stay connected, and each job must reach exactly the engine that it is meant for.
"""

import base64
import os
import resource
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bench.load import Script, drive, request
from bench.subject import Process, daemon
from bench.table import Row, Scale

GOAL_MS = 20.0
JOBS_MAX = 400
WAIT_S = 30.0
FILES_SPARE = 200


@dataclass
class _Received:
    """One message to an engine, and when it arrived."""

    engine: int
    message: dict[str, Any]
    at_s: float


@dataclass
class _Times:
    """Seconds for each job: beyond the commit, and from the request that caused it."""

    beyond_s: list[float] = field(default_factory=list[float])
    whole_s: list[float] = field(default_factory=list[float])

    def note(self, began_s: float, sent_s: float, assigned_s: float) -> None:
        """Record one job; an assignment that overtakes the reply costs nothing beyond the commit."""
        self.beyond_s.append(max(0.0, assigned_s - sent_s))
        self.whole_s.append(assigned_s - began_s)

    def row(self, name: str) -> Row:
        """Return the 99th percentile as a row."""
        p50, p99 = _percentile_ms(self.beyond_s, 0.5), _percentile_ms(self.beyond_s, 0.99)
        note = f"{len(self.whole_s)} jobs; with the commit {_percentile_ms(self.whole_s, 0.99):.1f}"
        return Row(name, p99, "ms", GOAL_MS, "less", p50, p99, note)


class _EngineSockets:
    """The engines' ends of many websockets, in one epoll loop."""

    def __init__(self, port: int, engines: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets = [_open_websocket(port, number) for number in range(engines)]
        self._buffers = [b""] * engines
        self._received: list[_Received] = []
        for number, opened in enumerate(self._sockets):
            self._selector.register(opened, selectors.EVENT_READ, number)

    def send(self, engine: int, message: dict[str, Any]) -> None:
        """Send a message as one masked frame; a mask of zeros is valid, too."""
        payload = msgspec.json.encode(message)
        head = b"\x81\xfe" + struct.pack("!H", len(payload))
        if len(payload) < 126:
            head = bytes([0x81, 0x80 | len(payload)])
        self._sockets[engine].sendall(head + bytes(4) + payload)

    def wait_for(self, kind: str) -> _Received:
        """Return the next message of a kind to any engine."""
        ends_s = time.perf_counter() + WAIT_S
        while time.perf_counter() < ends_s:
            for received in self._received:
                if received.message["type"] == kind:
                    self._received.remove(received)
                    return received
            for key, _ in self._selector.select(1.0):
                self._receive(key.data)
        raise RuntimeError(f"no engine received {kind!r} within {WAIT_S:.0f} s")

    def close(self) -> None:
        """Close all connections."""
        self._selector.close()
        for opened in self._sockets:
            opened.close()

    def _receive(self, number: int) -> None:
        data = self._sockets[number].recv(1 << 16)
        at_s = time.perf_counter()
        if not data:
            raise RuntimeError(f"the daemon closed the connection of engine {number}")
        self._buffers[number] += data
        while (found := _maybe_frame(self._buffers[number])) is not None:
            opcode, payload, self._buffers[number] = found
            if opcode == 1:
                message = msgspec.json.decode(payload, type=dict[str, Any])
                self._received.append(_Received(number, message, at_s))


def push_latency(folder: Path, scale: Scale) -> list[Row]:
    """Connect twice `scale.engines` engines; measure submissions, then an engine that becomes free."""
    folder.mkdir()
    engines = 2 * scale.engines
    jobs = min(JOBS_MAX, engines // 2)
    with daemon(folder) as subject, _engines(subject, engines) as sockets:
        client = socket.create_connection(("127.0.0.1", subject.port))
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            submitted = _submissions(client, sockets, jobs)
            freed = _freed(client, sockets, jobs, engines - 1)
    return [
        submitted.row(f"push: submitted to assigned, {engines} engines"),
        freed.row(f"push: engine free to assigned, {engines} engines"),
    ]


def _submissions(client: socket.socket, sockets: _EngineSockets, jobs: int) -> _Times:
    """Submit one job after the other while engines are idle; job N must reach engine N."""
    times = _Times()
    for number in range(jobs):
        began_s = time.perf_counter()
        job_id = _submit(client)
        sent_s = time.perf_counter()
        received = sockets.wait_for("assigned")
        _check(received, number, job_id)
        times.note(began_s, sent_s, received.at_s)
    return times


def _freed(client: socket.socket, sockets: _EngineSockets, jobs: int, engine: int) -> _Times:
    """Have a job wait for the only suitable engine, then complete that engine's present job."""
    times = _Times()
    running = _submit(client, "solo")
    _check(sockets.wait_for("assigned"), engine, running)
    for number in range(jobs):
        waiting = _submit(client, "solo")
        body = {"output_url": "http://example.com/o.mp4", "attempt": 1}
        began_s = time.perf_counter()
        sockets.send(engine, {"type": "completed", "id": number, "job_id": running, "body": body})
        ack, received = sockets.wait_for("ack"), sockets.wait_for("assigned")
        if "problem" in ack.message:
            raise RuntimeError(f"a completion was rejected: {ack.message}")
        _check(received, engine, waiting)
        times.note(began_s, ack.at_s, received.at_s)
        running = waiting
    return times


def _check(received: _Received, engine: int, job_id: str) -> None:
    found = received.message["job"]["job_id"]
    if (received.engine, found) != (engine, job_id):
        raise RuntimeError(
            f"job {job_id} was meant for engine {engine}; {received.engine} got {found}"
        )


@contextmanager
def _engines(subject: Process, engines: int) -> Iterator[_EngineSockets]:
    """Register engines, the first the fastest and the last the only `solo`, and connect them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < engines + FILES_SPARE:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, engines + FILES_SPARE), hard))
    beats = [
        request("POST", "/engines/heartbeat", _beat(number, is_solo=number == engines - 1))
        for number in range(engines)
    ]
    result = drive(subject.port, [_once(beats)])
    if result.bad:
        raise RuntimeError(f"a heartbeat was rejected: {result.bad[0]}")
    sockets = _EngineSockets(subject.port, engines)
    try:
        yield sockets
    finally:
        sockets.close()


def _once(requests: list[bytes]) -> Script:
    for data in requests:  # noqa: UP028 - replies are sent in, which a list's iterator cannot take
        yield data


def _beat(number: int, *, is_solo: bool) -> bytes:
    return msgspec.json.encode(
        {
            "engine_id": f"e{number}",
            "status": "idle",
            "benchmark_time": 1.0 + number,
            "tags": ["solo"] if is_solo else [],
        }
    )


def _submit(client: socket.socket, *requires: str) -> str:
    """Submit a job that goes to the fastest engine; return its id."""
    body = msgspec.json.encode(
        {
            "source_url": "http://example.com/video.mp4",
            "target_codec": "h264",
            "job_size": 60,
            "requires": requires,
        }
    )
    client.sendall(request("POST", "/jobs/", body))
    job = msgspec.json.decode(_read_body(client), type=dict[str, Any])
    return str(job["job_id"])


def _read_body(client: socket.socket) -> bytes:
    """Return the body of a reply with a Content-Length."""
    reply = b""
    while b"\r\n\r\n" not in reply:
        reply += client.recv(1 << 16)
    head, _, body = reply.partition(b"\r\n\r\n")
    size = next(
        int(line[15:])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    while len(body) < size:
        body += client.recv(1 << 16)
    return body


def _open_websocket(port: int, number: int) -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", port))
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET /engines/e{number}/ws HTTP/1.1",
        "Host: bench",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Protocol: v1.distconv",
    ]
    opened.sendall("\r\n".join([*lines, "", ""]).encode())
    reply = b""
    while not reply.endswith(b"\r\n\r\n"):
        data = opened.recv(1)
        if not data:
            raise RuntimeError(f"no websocket for engine {number}: {reply!r}")
        reply += data
    if not reply.startswith(b"HTTP/1.1 101 "):
        raise RuntimeError(f"no websocket for engine {number}: {reply!r}")
    return opened


def _maybe_frame(buffer: bytes) -> tuple[int, bytes, bytes] | None:
    """Return a server frame's opcode and payload, and the rest; None while it is incomplete."""
    if len(buffer) < 2:
        return None
    size, start = buffer[1], 2
    if size == 126:
        start = 4
        size = int.from_bytes(buffer[2:4], "big")
    elif size == 127:
        start = 10
        size = int.from_bytes(buffer[2:10], "big")
    if len(buffer) < start + size:
        return None
    return buffer[0] & 0x0F, buffer[start : start + size], buffer[start + size :]


def _percentile_ms(seconds: list[float], part: float) -> float:
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]
