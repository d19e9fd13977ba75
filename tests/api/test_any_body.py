"""Check that no body causes a 500 and that rejected bodies change nothing."""

from typing import Any

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.api.kit import SOURCE, Farm

from distconvd.model import (
    BenchmarkReport,
    CompleteReport,
    FailReport,
    Heartbeat,
    JobPatch,
    ProgressReport,
    ReleaseReport,
    Submission,
)
from distconvd.testing.daemon import open_daemon

GOOD: dict[str, Any] = {
    "source_url": SOURCE,
    "target_codec": "h264",
    "engine_id": "e1",
    "benchmark_time": 5.0,
    "output_url": "http://h/o",
    "error_message": "no luck",
    "attempt": 1,
}
NUMBERS = [0, 1, -1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**40, 0.5, -0.5, 1e300, 5e-324]
VALUES = st.recursive(
    st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.text(max_size=20)
    | st.sampled_from(["h264", "e1", "pending", "file:///x", "mp4", "engine", "x" * 9000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
RAW = [b"1e999", b"NaN", b'"\\ud800"', b"\xff", b"[" * 2000, b"9" * 400, b'{"a":1,"a":2}', b""]
ENDPOINTS: list[tuple[str, str, type[msgspec.Struct]]] = [
    ("POST", "/jobs/", Submission),
    ("POST", "/jobs/?strict=true&dry_run=true", Submission),
    ("POST", "/engines/heartbeat", Heartbeat),
    ("POST", "/engines/benchmark_result", BenchmarkReport),
    ("PATCH", "/jobs/{id}", JobPatch),
    ("POST", "/jobs/{id}/progress", ProgressReport),
    ("POST", "/jobs/{id}/fail", FailReport),
    ("POST", "/jobs/{id}/release", ReleaseReport),
    ("POST", "/jobs/{id}/complete", CompleteReport),
]


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Return a call whose body is valid except for a few fields, which may be anything."""
    method, path, kind = draw(st.sampled_from(ENDPOINTS))
    body = {name: GOOD[name] for name in kind.__struct_fields__ if name in GOOD}
    names = st.sampled_from([*kind.__struct_fields__, "unknown"])
    body |= draw(st.dictionaries(names, VALUES, max_size=3))
    encoded = msgspec.json.encode(body)
    if draw(st.booleans()):
        field, value = draw(names), draw(st.sampled_from(RAW))
        encoded = encoded[:-1] + b',"%b":%b}' % (field.encode(), value)
    return method, path, encoded


async def try_all(calls: list[tuple[str, str, bytes]]) -> None:
    async with open_daemon() as daemon:
        farm = Farm(daemon)
        job_id = (await farm.assigned())["job_id"]
        for method, path, body in calls:
            before = farm.stored()
            headers = {"Idempotency-Key": "k"} if path == "/jobs/" else {}
            reply = await farm.client.request(method, path.replace("{id}", job_id), body, headers)
            assert reply.status < 500, (method, path, body, reply.body)
            if reply.status >= 400:
                assert reply.json()["detail"]
                assert farm.stored() == before
        for path in ("/jobs/", "/engines/", f"/jobs/{job_id}/attempts", f"/jobs/{job_id}/why"):
            reply = await farm.client.get(path)
            assert reply.status == 200
            reply.json()


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(requests(), min_size=1, max_size=12))
def test_any_body_is_accepted_or_rejected_and_never_a_500(
    calls: list[tuple[str, str, bytes]],
) -> None:
    trio.run(try_all, calls)
