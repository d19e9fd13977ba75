"""Generate byte streams of requests and noise, and send them; both fuzzers use this.

`FUZZ_EXAMPLES` says how many streams are tried; `make fuzz` tries many more than the suite does.
"""

import os
from collections.abc import Sequence

import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from tests.edge.kit import read_all


def so_many(usual: int) -> settings:
    """Return the settings of a fuzzer that tries `usual` streams, or `FUZZ_EXAMPLES` if that is set."""
    return settings(
        max_examples=int(os.environ.get("FUZZ_EXAMPLES", usual)),
        deadline=None,
        suppress_health_check=[*HealthCheck],  # pyright: ignore[reportArgumentType] - an enum iterates
    )


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
SIZES = st.lists(st.integers(1, 200), min_size=1, max_size=5)
"""Sizes of the pieces in which a stream arrives."""
ENDINGS = st.sampled_from(["close", "half-close", "silence"])


@st.composite
def _mutated(draw: st.DrawFn, good: Sequence[bytes]) -> bytes:
    data = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.integers(0, 6)))
        data[at:until] = draw(st.sampled_from(PIECES) | st.binary(max_size=4))
    return bytes(data)


def streams(good: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return streams of good requests that are cut, joined, repeated and mutated, and of noise."""
    part = st.sampled_from(good) | _mutated(good) | st.sampled_from(PIECES) | st.binary(max_size=40)
    return st.lists(part, min_size=1, max_size=4).map(b"".join)


async def converse(
    client: trio.abc.HalfCloseableStream, data: bytes, sizes: Sequence[int], ending: str
) -> bytes | None:
    """Send a stream in pieces and end it; return all replies, None if the client has closed."""
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
        pass  # the server may close at any time
    if ending == "close":
        await client.aclose()
        return None
    return await read_all(client)
