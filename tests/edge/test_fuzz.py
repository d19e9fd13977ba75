"""Check the invariant that every byte stream ends in well-formed replies or a close.

There is never a traceback, a stuck task, or a handler run for an incomplete request. This module uses
a small app with a route for each feature of the edge; `test_fuzz_daemon` uses a whole daemon and looks
for changed jobs.
"""

import pytest
import trio
from hypothesis import given
from tests.edge.fuzz import ENDINGS, SIZES, converse, so_many, streams
from tests.edge.kit import Journal, chunked, get, open_site, post, read_replies, small_app
from trio.testing import MockClock

pytestmark = pytest.mark.slow

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


@so_many(200)
@given(data=streams(GOOD), sizes=SIZES, ending=ENDINGS)
def test_every_byte_stream_ends_in_well_formed_replies_or_a_close(
    data: bytes, sizes: list[int], ending: str
) -> None:
    journal = Journal()
    trio.run(one_stream, journal, data, sizes, ending, clock=MockClock(autojump_threshold=0))
    assert all(exchange.status != 500 or b"/crash" in data for exchange in journal.exchanges)


async def one_stream(journal: Journal, data: bytes, sizes: list[int], ending: str) -> None:
    async with open_site(small_app(journal)) as site:
        said = await converse(site.connect(), data, sizes, ending)
        if said is not None:
            read_replies(said, methods_for(said, journal))
        # After the longest of the timeouts nothing of the stream may be left.
        await trio.sleep(100)
        assert site.open == 0


def methods_for(said: bytes, journal: Journal) -> list[str]:
    """Return the methods of the answered requests, because replies to HEAD have no body."""
    assert said == b"" or journal.exchanges
    return ["HEAD" if e.method == "HEAD" else "GET" for e in journal.exchanges]


@pytest.fixture(autouse=True)
def no_surprise(caplog: pytest.LogCaptureFixture) -> object:
    """Check that nothing is logged but the crash that a request asks for."""
    caplog.set_level("WARNING", logger="distconvd")
    yield
    for record in caplog.records:
        assert record.getMessage().startswith("GET /crash failed"), record.getMessage()
