"""Check the same invariant for a whole daemon: unauthorized byte streams change no job.

Every call that changes something is made, correctly and mutated, by callers who may only read, or who
have a wrong key or none. Whatever the stream, afterwards the stored state is unchanged, every reply is
well-formed, no task is left, and nothing but wrong keys is logged at WARNING or above.
"""

import logging
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from hypothesis import given
from tests.api.kit import Farm
from tests.edge.fuzz import ENDINGS, SIZES, converse, so_many, streams
from tests.edge.kit import chunked, get, post, read_replies
from trio.testing import MockClock, wait_all_tasks_blocked

from distconvd.auth_keys.key_file import add_key
from distconvd.edge.access import Exchange
from distconvd.testing.daemon import open_daemon

pytestmark = pytest.mark.slow

READER = "{reader}"
"""Placeholder for the key of a caller who may only read."""
KEYS = ["X-API-Key: " + READER, "Authorization: Bearer " + READER, "X-API-Key: guess", "A: b"]
JOB = b'{"source_url":"file:///a.mov","target_codec":"h264"}'
JSON = "Content-Type: application/json"
NDJSON = "Content-Type: application/x-ndjson"
# Job 1 is pending, job 2 is assigned to engine e1, job 3 has ended.
CALLS: list[tuple[str, str, bytes, str]] = [
    ("POST", "/jobs/", JOB, JSON),
    ("POST", "/jobs/?strict=true", JOB, "Idempotency-Key: k"),
    ("POST", "/jobs/", JOB + b"\n" + JOB, NDJSON),
    ("PATCH", "/jobs/{1}", b'{"priority":2}', JSON),
    ("DELETE", "/jobs/{2}", b"", "If-Match: *"),
    ("POST", "/jobs/{3}/retry", b"", "A: b"),
    ("POST", "/jobs/{2}/complete", b'{"output_url":"file:///o"}', JSON),
    ("POST", "/jobs/{2}/fail", b'{"error_message":"no"}', JSON),
    ("POST", "/jobs/{2}/release", b'{"engine_id":"e1","attempt":1}', JSON),
    ("POST", "/jobs/{2}/progress", b'{"fraction":0.5,"attempt":1}', JSON),
    ("POST", "/engines/heartbeat", b'{"engine_id":"e2"}', JSON),
    ("POST", "/engines/benchmark_result", b'{"engine_id":"e1","benchmark_time":1.0}', JSON),
    ("POST", "/assign_job/", b'{"engine_id":"e1"}', JSON),
    ("POST", "/engines/e1/drain", b"", "A: b"),
    ("DELETE", "/engines/e1", b"", "A: b"),
    ("GET", "/jobs/?limit=2", b"", "A: b"),
    ("HEAD", "/jobs/{2}", b"", "A: b"),
    ("GET", "/jobs/{1}", b"", "Prefer: wait=20"),
    ("GET", "/engines/e1/ws", b"", "Upgrade: websocket"),
    ("OPTIONS", "/jobs/", b"", "Origin: https://a.example"),
    ("GET", "/livez", b"", "Origin: https://a.example"),
]


def good() -> list[bytes]:
    """Return every call with each key, with a length and in chunks."""
    whole = [post(p, body, more, key, method=m) for m, p, body, more in CALLS for key in KEYS]
    pieces = [
        get(p, more, key, "Transfer-Encoding: chunked", method=m) + chunked(body[:9], body[9:])
        for m, p, body, more in CALLS
        for key in KEYS
        if len(body) > 9
    ]
    return whole + pieces


class Keys(NamedTuple):
    """The key file and the keys in it."""

    path: Path
    admin: str
    reader: str


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    return Keys(path, add_key(path, "admin", ["admin"], 0), add_key(path, "reader", ["read"], 0))


@so_many(60)
@given(data=streams(good()), sizes=SIZES, ending=ENDINGS)
def test_no_byte_stream_from_an_unauthorized_client_changes_anything(
    keys: Keys, data: bytes, sizes: list[int], ending: str
) -> None:
    trio.run(one_stream, keys, data, sizes, ending, clock=MockClock(autojump_threshold=0))


async def one_stream(keys: Keys, data: bytes, sizes: list[int], ending: str) -> None:
    async with open_daemon(
        api_key=None,
        key_file=str(keys.path),
        plugin={"key-file": {"poll_s": 1e6}},  # a polling thread would stop the mock clock
        dispatch={"lease_s": 1e6, "engine_timeout_s": 1e6, "pickup_s": 1e6},
        cors_origins=["https://a.example"],
    ) as daemon:
        farm = Farm(daemon)
        farm.client = daemon.client_with({"x-api-key": keys.admin})
        data = named(data.replace(READER.encode(), keys.reader.encode()), await three_jobs(farm))
        exchanges: list[Exchange] = []
        daemon.parts.app.observers = [exchanges.append]
        await wait_all_tasks_blocked()  # the connections of the calls above are closed
        before, tasks = farm.stored(), living()
        client = await daemon.connect()
        assert isinstance(client, trio.abc.HalfCloseableStream)
        said = await converse(client, data, sizes, ending)
        if said is not None:
            read_replies(said, ["HEAD" if e.method == "HEAD" else "GET" for e in exchanges])
        with trio.fail_after(100):  # longer than the longest of the timeouts
            while living() > tasks:
                await trio.sleep(1)
        assert farm.stored() == before
        assert all(exchange.status < 500 or exchange.status in (501, 505) for exchange in exchanges)


async def three_jobs(farm: Farm) -> list[str]:
    """Create a job that has ended, one assigned and one pending; return their ids, last first."""
    ended = await farm.assigned()
    await farm.client.post(f"/jobs/{ended['job_id']}/complete", {"output_url": "file:///o"})
    await farm.beat()
    assigned_job = await farm.assigned()
    waiting = await farm.submit()
    return [waiting["job_id"], assigned_job["job_id"], ended["job_id"]]


def named(data: bytes, ids: list[str]) -> bytes:
    for number, job_id in enumerate(ids, 1):
        data = data.replace(b"{%d}" % number, job_id.encode())
    return data


def living() -> int:
    return trio.lowlevel.current_statistics().tasks_living


@pytest.fixture(autouse=True)
def no_surprise(caplog: pytest.LogCaptureFixture) -> object:
    """Check that nothing but wrong keys is logged at WARNING or above."""
    caplog.set_level("WARNING", logger="distconvd")
    yield
    loud = {r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING}
    assert loud <= {"a request with a wrong key was refused"}
