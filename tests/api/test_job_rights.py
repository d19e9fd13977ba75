"""A job may do no more than the key that submitted it, and a key sees no more than it may."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.api.kit import SOURCE, ok, problem
from tests.api.test_submissions import CALLERS

from distconv_plugins.listener_exec import environment_of
from distconv_plugins.shared.events import event_json
from distconvd.dispatch.submit import submit
from distconvd.model import Submission
from distconvd.plugin_api import Event
from distconvd.testing.daemon import Client, Daemon, open_daemon

HOST = "farm.example:8080"
JOB = {"source_url": SOURCE, "target_codec": "h264"}


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncGenerator[Daemon]:
    """A daemon whose keys are `NAME:ROLE,ROLE`."""
    plugin = tmp_path / "callers.py"
    plugin.write_text(CALLERS)
    async with open_daemon(plugins=[str(plugin)], auth="by-name") as daemon:
        yield daemon


def key(farm: Daemon, name: str) -> Client:
    return farm.client_with({"X-API-Key": name, "host": HOST})


async def cancel_job(farm: Daemon, job_id: str) -> None:
    ok(await key(farm, "root").delete(f"/jobs/{job_id}"))


@pytest.mark.parametrize(
    "url",
    [
        f"http://{HOST}/media/secret.mp4",
        f"https://{HOST.upper()}/media/secret.mp4",
        f"http://anna:pw@{HOST}/media/a/b.mp4",
        f"http://{HOST}/%6dedia/secret.mp4",
        f"http://{HOST}/api/v1/media/secret.mp4",
    ],
)
async def test_a_key_that_may_not_read_the_media_store_submits_no_source_from_it(
    farm: Daemon, url: str
) -> None:
    reply = await key(farm, "mallory:submit").post("/jobs/", JOB | {"source_url": url})
    answer = problem(reply, 403)
    assert "'read'" in answer["detail"]
    assert answer["field"] == "source_url"
    batch = msgspec.json.encode(JOB | {"source_url": url})
    lines = await key(farm, "mallory:submit").post(
        "/jobs/", batch, content_type="application/x-ndjson"
    )
    assert lines.json()["status"] == 403


async def test_a_key_that_may_read_submits_sources_from_the_media_store(farm: Daemon) -> None:
    job = JOB | {"source_url": f"http://{HOST}/media/mine.mp4"}
    for name in ("anna:submit,read", "root:admin"):
        assert ok(await key(farm, name).post("/jobs/", job))["may_read_media"] is True


async def test_a_job_records_its_key_and_whether_that_may_read_the_media_store(
    farm: Daemon,
) -> None:
    job = ok(await key(farm, "mallory:submit").post("/jobs/", JOB))
    assert (job["submitted_by"], job["may_read_media"]) == ("mallory", False)
    forged = JOB | {"submitted_by": "anna", "may_read_media": True}
    job = ok(await key(farm, "mallory:submit").post("/jobs/", forged))
    assert (job["submitted_by"], job["may_read_media"]) == ("mallory", False)


@pytest.mark.parametrize("method,rest", [("PATCH", ""), ("DELETE", ""), ("POST", "/retry")])
async def test_a_job_of_another_key_does_not_exist_for_a_key_that_may_only_submit(
    farm: Daemon, method: str, rest: str
) -> None:
    job_id = ok(await key(farm, "anna:submit").post("/jobs/", JOB))["job_id"]
    if rest:
        await cancel_job(farm, job_id)
    mallory, before = key(farm, "mallory:submit"), farm.parts.dispatcher.state.jobs[job_id]
    body = b"{}" if method == "PATCH" else None
    foreign = problem(await mallory.request(method, f"/jobs/{job_id}{rest}", body), 404)
    unknown = problem(await mallory.request(method, f"/jobs/1_0{rest}", body), 404)
    assert foreign["detail"] == unknown["detail"]
    assert farm.parts.dispatcher.state.jobs[job_id] == before


@pytest.mark.parametrize("name", ["anna:submit", "bob:submit,read", "root:admin"])
async def test_a_job_is_changed_by_its_own_key_and_by_keys_that_may_see_it(
    farm: Daemon, name: str
) -> None:
    job_id = ok(await key(farm, "anna:submit").post("/jobs/", JOB))["job_id"]
    changed = ok(await key(farm, name).patch(f"/jobs/{job_id}", {"priority": 2}))
    assert (changed["priority"], changed["submitted_by"]) == (2, "anna")
    assert ok(await key(farm, name).delete(f"/jobs/{job_id}"))["status"] == "cancelled"
    assert ok(await key(farm, name).post(f"/jobs/{job_id}/retry", {}))["status"] == "pending"


async def test_a_job_without_a_recorded_key_is_seen_by_readers_only(farm: Daemon) -> None:
    record = await farm.parts.ledger.execute(submit, Submission(SOURCE, "h264"))
    job_id = msgspec.json.decode(record)["job_id"]
    problem(await key(farm, "anna:submit").patch(f"/jobs/{job_id}", {}), 404)
    ok(await key(farm, "bob:submit,read").patch(f"/jobs/{job_id}", {}))


# --------------------------------------------------------------------------------- secrets of URLs

SECRETS = {
    "source_url": "http://user:s3cret@cdn.example/in.mp4?X-Amz-Signature=s3cret",
    "output": {"url": "https://put.example/out.mp4?sig=s3cret"},
}


async def job_with_secrets(farm: Daemon) -> dict[str, Any]:
    """Return a job of key anna, which has failed once and is assigned to e1 again."""
    engine = key(farm, "e:engine")
    job = ok(await key(farm, "anna:submit,read").post("/jobs/", JOB | SECRETS))
    ok(await engine.post("/engines/heartbeat", {"engine_id": "e1", "benchmark_time": 1.0}))
    ask = {"engine_id": "e1"}
    assigned = ok(await engine.post("/assign_job/", ask))
    assert assigned["source_url"] == SECRETS["source_url"], "an engine needs the whole URL"
    failure = {
        "error_message": f"refused: {SECRETS['source_url']}",
        "attempt": 1,
        "engine_id": "e1",
    }
    report = ok(await engine.post(f"/jobs/{job['job_id']}/fail", failure))
    assert "s3cret" not in str(report)
    ok(await engine.post("/assign_job/", ask))
    return job


async def test_only_the_key_that_gave_a_url_reads_its_secrets(
    farm: Daemon, autojump_clock: object
) -> None:
    job = await job_with_secrets(farm)
    assert job["source_url"] == SECRETS["source_url"]
    path = f"/jobs/{job['job_id']}"
    anna, bob, root = key(farm, "anna:read"), key(farm, "bob:read,submit"), key(farm, "root:admin")
    assert ok(await anna.get(path))["source_url"] == SECRETS["source_url"]
    assert "s3cret" in str((await anna.get("/jobs/")).json())
    for reader in (bob, root):
        shown = ok(await reader.get(path))
        assert shown["source_url"] == "http://***@cdn.example/in.mp4?X-Amz-Signature=***"
        assert shown["output"] == {"url": "https://put.example/out.mp4?sig=***"}
        for more in (path, "/jobs/", "/jobs/?limit=5", f"{path}/attempts", f"{path}/why"):
            reply = await reader.get(more)
            assert reply.status == 200
            assert b"s3cret" not in reply.body, more
        changed = await reader.patch(path, {"priority": 1})
        assert (changed.status, b"s3cret" in changed.body) == (200, False)


async def test_a_masked_version_is_the_version_of_its_reader(
    farm: Daemon, autojump_clock: object
) -> None:
    path = f"/jobs/{(await job_with_secrets(farm))['job_id']}"
    bob = key(farm, "bob:read,submit")
    etag = (await bob.get(path)).headers["etag"]
    assert (await bob.get(path, if_none_match=etag)).status == 304
    assert (await bob.patch(path, {"priority": 1}, if_match=etag)).status == 200
    assert (await bob.patch(path, {"priority": 2}, if_match=etag)).status == 412


async def test_events_show_secrets_to_the_key_that_gave_them_only(
    farm: Daemon, autojump_clock: object
) -> None:
    await job_with_secrets(farm)
    for name, sees in (("anna:read", True), ("bob:read", False), ("root:admin", False)):
        headers = {"last-event-id": "0"}
        async with key(farm, name).exchange("GET", "/events", None, headers) as (reply, chunks):
            assert reply.status == 200
            received = b""
            async for chunk in chunks:
                received += chunk
                if received.count(b"event: job.assigned") == 2:
                    break
        assert (b"s3cret" in received) == sees, name


def test_listeners_outside_of_the_daemon_get_no_secrets() -> None:
    record = msgspec.json.encode(SECRETS)
    event = Event("job.failed", 1, "1_0", record=record, reason=f"no {SECRETS['source_url']}")
    assert b"s3cret" not in event_json(event, id="x")
    assert "s3cret" not in str(environment_of(event))
