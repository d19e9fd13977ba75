"""Test what operators and machines ask: readiness, counts, metrics, plugins."""

from pathlib import Path

import trio
import trio.testing
from tests.api.kit import Farm, later, ok, problem
from tests.api.test_metrics import scraped
from trio.testing import MockClock

from distconv_plugins.stores.memory import MemoryStore
from distconvd import __version__
from distconvd.testing.daemon import open_daemon


async def test_while_the_store_fails_changes_are_rejected_and_readyz_is_503(
    autojump_clock: MockClock, farm: Farm
) -> None:
    store = farm.daemon.store
    assert isinstance(store, MemoryStore)
    job = await farm.submit()
    store.fail_next(OSError(28, "No space left on device"), times=5)
    refused = await farm.client.post("/jobs/", {"source_url": "http://h/a", "target_codec": "av1"})
    assert "No space left on device" in problem(refused, 503)["detail"]
    assert refused.headers["retry-after"] == "2"
    red = await farm.daemon.anonymous.get("/readyz")
    assert (red.status, red.headers["retry-after"]) == (503, "1")
    assert "No space left" in red.json()["causes"]["store"]
    assert (await farm.daemon.anonymous.get("/livez")).status == 200
    assert (await farm.client.get("/jobs/")).json() == [job]
    assert await farm.job(job["job_id"]) == job
    problem(await farm.client.delete(f"/jobs/{job['job_id']}"), 503)
    assert ok(await farm.client.get("/status"))["not_ready"]
    assert (await scraped(farm.daemon))("distconv_not_ready") == 1
    await trio.sleep(10)
    assert (await scraped(farm.daemon))("distconv_not_ready") == 0
    assert (await farm.daemon.anonymous.get("/readyz")).json() == {"ready": True, "causes": {}}
    assert (await farm.submit())["status"] == "pending"


async def test_readyz_reports_the_drain_on_connections_that_are_already_open(
    autojump_clock: MockClock, farm: Farm
) -> None:
    async with await farm.daemon.connect() as stream:
        await stream.send_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n")
        await trio.testing.wait_all_tasks_blocked()
        farm.daemon.stop()
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(b"\r\n")
        said = b"".join([bytes(chunk) async for chunk in stream])
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b'{"draining":"the daemon is stopping"}' in said
    assert b"Connection: close" in said


async def test_reads_and_unchanged_heartbeats_work_while_the_store_fails(
    autojump_clock: MockClock, farm: Farm
) -> None:
    store = farm.daemon.store
    assert isinstance(store, MemoryStore)
    await farm.beat()
    store.fail_next(OSError(28, "full"), times=100)
    problem(
        await farm.client.post("/jobs/", {"source_url": "http://h/a", "target_codec": "a"}), 503
    )
    assert (await farm.beat())["state"] == "idle"
    for path in ("/jobs/", "/engines/", "/engines/e1", "/status", "/metrics", "/version"):
        assert (await farm.client.get(path)).status == 200


async def test_a_read_during_a_commit_that_fails_shows_the_state_before_it(
    autojump_clock: MockClock, farm: Farm, nursery: trio.Nursery
) -> None:
    store = farm.daemon.store
    assert isinstance(store, MemoryStore)
    store.block_commits()
    store.fail_next(OSError(5, "I/O error"))
    body = {"source_url": "http://h/a", "target_codec": "h264"}
    submitted = await later(nursery, farm.client.post, "/jobs/", body)
    listed = await later(nursery, farm.client.get, "/jobs/")
    assert not listed.is_answered
    store.release()
    assert (await submitted.wait()).status == 503
    reply = await listed.wait()
    assert (reply.status, reply.body) == (200, b"[]")


async def test_status_counts_jobs_engines_and_the_queue(farm: Farm) -> None:
    await farm.assigned()
    await farm.submit()
    await farm.submit(not_before=1_900_000_000_000)
    found = ok(await farm.client.get("/status"))
    assert found["jobs"] == {
        "pending": 2, "assigned": 1, "completed": 0, "failed_permanently": 0, "cancelled": 0,
    }  # fmt: skip
    assert found["queue"]["oldest_s"] >= 0
    assert found["queue"] | {"oldest_s": 0} == {"ready": 1, "delayed": 1, "oldest_s": 0}
    assert found["engines"] == {"busy": 1}
    assert found["version"] == __version__


async def test_the_version_is_that_of_the_package(farm: Farm) -> None:
    assert ok(await farm.client.get("/version")) == {"name": "distconvd", "version": __version__}


async def test_metrics_count_requests_by_route_and_bound_their_labels(farm: Farm) -> None:
    await farm.assigned()
    await farm.client.get("/jobs/1_0")
    for n in range(5):
        await farm.client.request(f"MADEUP{n}", "/jobs/")
        await farm.client.get(f"/nothing/{n}")
    reply = await farm.client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    text = reply.body.decode()
    for line in (
        'distconv_jobs{status="assigned"} 1.0',
        'distconv_engines{state="busy"} 1.0',
        'distconv_http_requests_total{method="POST",route="/jobs",status="200"} 1.0',
        'distconv_http_requests_total{method="GET",route="/jobs/{job_id}",status="404"} 1.0',
        'distconv_http_requests_total{method="other",route="none",status="405"} 5.0',
        'distconv_http_requests_total{method="GET",route="none",status="404"} 5.0',
    ):
        assert line in text.splitlines()
    assert "MADEUP" not in text
    assert "distconv_commit_seconds_count" in text


async def test_the_loaded_plugins_are_listed_with_their_hooks(farm: Farm) -> None:
    listed = {p["name"]: p for p in (await farm.client.get("/plugins")).json()}
    hooks = ["distconvd_register_policies", "distconvd_register_settings"]
    assert listed["size-aware"]["hooks"] == hooks
    assert {"api-key", "no-auth", "stores", "media-store", "spool-intake"} <= listed.keys()


LISTENER = """
from distconvd import hookimpl

@hookimpl
def distconvd_event(event):
    raise RuntimeError("a bug of the plugin")
"""


async def test_a_failing_listener_is_counted_and_does_not_affect_others(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    plugin = tmp_path / "listener.py"
    plugin.write_text(LISTENER)
    async with open_daemon(plugins=[str(plugin)]) as daemon:
        await Farm(daemon).submit()
        text = (await daemon.client.get("/metrics")).body.decode()
    assert 'distconv_listener_failures_total{listener="listener"} 1.0' in text
