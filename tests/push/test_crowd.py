"""Test two thousand connected, idle engines."""

import gc
import time
from typing import Any

import msgspec
import pytest
import trio
from tests.api.kit import Farm
from tests.push.kit import frame, handshake
from trio.testing import MockClock, wait_all_tasks_blocked

from distconvd.testing.daemon import Daemon

pytestmark = pytest.mark.slow

ENGINES = 2_000
FEW = 200
GROWTH = 3.0
"""By what factor the last engines may cost more than the first: a scan would cost far more."""


class Member:
    """One engine of the crowd. It writes frames by hand: 2,000 library clients would dominate."""

    def __init__(self, number: int, stream: trio.abc.Stream) -> None:
        self.engine_id = f"e{number}"
        self._stream = stream
        self._received = b""
        body = {
            "engine_id": self.engine_id,
            "status": "idle",
            "benchmark_time": float(number),
            "supported_codecs": [f"codec{number % 4}"],
        }
        self._beat = msgspec.json.encode({"type": "heartbeat", "id": 1, "body": body})

    async def join(self) -> None:
        """Connect, register and wait for the ack."""
        await self._stream.send_all(handshake(self.engine_id))
        while not self._received.endswith(b"\r\n\r\n"):
            self._received += await self._stream.receive_some()
        self._received = b""
        await self._stream.send_all(frame(1, self._beat))
        assert (await self.receive())["type"] == "ack"

    async def receive(self) -> dict[str, Any]:
        """Return the next message."""
        while True:
            start = 4 if self._received[1:2] == b"\x7e" else 2
            size = int.from_bytes(self._received[2:4] if start == 4 else self._received[1:2], "big")
            if self._received and len(self._received) >= start + size:
                payload = self._received[start : start + size]
                self._received = self._received[start + size :]
                message: dict[str, Any] = msgspec.json.decode(payload)
                return message
            self._received += await self._stream.receive_some()


async def joined(members: list[Member]) -> float:
    """Let all of them join; return the CPU time in seconds.

    The garbage collector is off meanwhile: it would scan the objects of the whole test suite.
    """
    gc.disable()
    try:
        began_s = time.process_time()
        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(member.join)
        return time.process_time() - began_s
    finally:
        gc.enable()


@pytest.mark.alone
async def test_with_two_thousand_idle_engines_each_job_reaches_exactly_the_right_one(
    autojump_clock: MockClock, daemon: Daemon, farm: Farm
) -> None:
    streams = [await daemon.connect() for _ in range(ENGINES)]
    crowd = [Member(number, stream) for number, stream in enumerate(streams)]
    first_s = await joined(crowd[:FEW])
    await joined(crowd[FEW:-FEW])
    last_s = await joined(crowd[-FEW:])
    assert last_s < GROWTH * first_s
    assert len(daemon.parts.push.sessions) == ENGINES
    received: list[tuple[str, str]] = []

    async def listen(member: Member) -> None:
        while True:
            message = await member.receive()
            received.append((member.engine_id, message["job"]["job_id"]))

    async with trio.open_nursery() as nursery:
        for member in crowd:
            nursery.start_soon(listen, member)
        wanted = []
        # The four fastest engines of a codec, then its four slowest.
        for size, engines in ((60, (2, 6, 10, 14)), (1, (1998, 1994, 1990, 1986))):
            for number in engines:
                job = await farm.submit(job_size=size, target_codec="codec2")
                wanted.append((f"e{number}", job["job_id"]))
        await wait_all_tasks_blocked()
        assert received == wanted
        nursery.cancel_scope.cancel()
    for stream in streams:
        await trio.aclose_forcefully(stream)
    await wait_all_tasks_blocked()
    assert daemon.parts.push.sessions == {}
