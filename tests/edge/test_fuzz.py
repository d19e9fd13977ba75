"""The invariant: every byte stream ends in well-formed replies or a close.

Never a traceback, never a stuck task, never a handler run for a request that was not whole. The
streams are made of good requests that are cut, joined, repeated and mutated, and of plain noise;
they arrive in pieces of any size and end in a close, a half-close or silence. `FUZZ_EXAMPLES` says
how many are tried.
"""

import logging
import os

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.edge.kit import Journal, chunked, get, open_site, post, read_all, read_replies, small_app
from trio.testing import MockClock

GOOD = [
    get("/"),
    get("/stream"),
    get("/jobs/a%20b?x=%41"),
    get("/", version="1.0"),
    get("/locked", "X-API-Key: good"),
    get("*", method="OPTIONS"),
    get("/", "Connection: close"),
    get("/", "Upgrade: websocket", "Connection: upgrade"),
    post("/echo", b'{"a":1}', "Content-Type: application/json"),
    post("/echo", b"abc", "Expect: 100-continue"),
    post("/ignore", b"x" * 50),
    post("/small", b"x" * 50),
    get("/count", "Transfer-Encoding: chunked", method="PUT") + chunked(b"abc", b"x" * 20),
    get("/crash"),
]
PIECES = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\x00",
    b" ",
    b":",
    b"%",
    b"Content-Length: 5\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: y\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"HTTP/1.1",
    b"\xff\xfe",
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.integers(0, 6)))
        data[at:until] = draw(st.sampled_from(PIECES) | st.binary(max_size=4))
    return bytes(data)


STREAMS = st.lists(
    st.sampled_from(GOOD) | mutated() | st.sampled_from(PIECES) | st.binary(max_size=40),
    min_size=1,
    max_size=4,
).map(b"".join)


@settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "200")),
    deadline=None,
    suppress_health_check=[*HealthCheck],  # pyright: ignore[reportArgumentType] - an enum iterates
)
@given(
    data=STREAMS,
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=5),
    ending=st.sampled_from(["close", "half-close", "silence"]),
)
def test_every_byte_stream_ends_in_well_formed_replies_or_a_close(
    data: bytes, sizes: list[int], ending: str
) -> None:
    journal = Journal()
    trio.run(converse, journal, data, sizes, ending, clock=MockClock(autojump_threshold=0))
    assert all(exchange.status != 500 or b"/crash" in data for exchange in journal.exchanges)


async def converse(journal: Journal, data: bytes, sizes: list[int], ending: str) -> None:
    async with open_site(small_app(journal)) as site:
        client = site.connect()
        try:
            at = 0
            while at < len(data):
                size = sizes[at % len(sizes)]
                await client.send_all(data[at : at + size])
                at += size
                await trio.sleep(0.001)
            if ending == "half-close":
                await client.send_eof()
        except trio.BrokenResourceError:
            pass
        if ending == "close":
            await client.aclose()
        else:
            said = await read_all(client)
            read_replies(said, methods_for(said, journal))
        # Whatever it was: after the longest of the timeouts nothing of it may be left.
        await trio.sleep(100)
        assert site.open == 0


def methods_for(said: bytes, journal: Journal) -> list[str]:
    """Return the methods of the requests that were answered, so that HEAD is read as such."""
    assert said == b"" or journal.exchanges
    return ["HEAD" if e.method == "HEAD" else "GET" for e in journal.exchanges]


@pytest.fixture(autouse=True)
def no_surprise(caplog: pytest.LogCaptureFixture) -> object:
    """Only the crash that a request asks for is ever logged."""
    caplog.set_level(logging.WARNING, logger="distconvd")
    yield
    for record in caplog.records:
        assert record.getMessage().startswith("GET /crash failed"), record.getMessage()
