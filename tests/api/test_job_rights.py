"""A job may do no more than the key that submitted it, and a key sees no more than it may."""

from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest
from tests.api.kit import SOURCE, ok, problem
from tests.api.test_submissions import CALLERS

from distconvd.dispatch.submit import submit
from distconvd.model import Submission
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
