"""Test the original's quick reference: every endpoint, with all spellings of path and key."""

from typing import Any

import pytest
from tests import originals
from tests.api.kit import SOURCE, Farm, ok, problem

from distconvd.testing.daemon import KEY, Daemon

ORIGINAL: list[tuple[str, str, Any]] = [
    ("POST", "/jobs/", {"source_url": SOURCE, "target_codec": "h264"}),
    ("GET", "/jobs/", None),
    ("GET", "/jobs/{id}", None),
    ("POST", "/jobs/{id}/complete", {"output_url": "http://example.com/output.mp4"}),
    ("POST", "/jobs/{id}/fail", {"error_message": "broken"}),
    ("POST", "/engines/heartbeat", {"engine_id": "e1"}),
    ("GET", "/engines/", None),
    ("POST", "/engines/benchmark_result", {"engine_id": "e1", "benchmark_time": 10.5}),
    ("POST", "/assign_job/", {}),
]
OURS: list[tuple[str, str, Any]] = [
    ("DELETE", "/jobs/{id}", None),
    ("PATCH", "/jobs/{id}", {"priority": 1}),
    ("GET", "/jobs/{id}/attempts", None),
    ("GET", "/jobs/{id}/why", None),
    ("GET", "/engines/e1", None),
    ("POST", "/engines/e1/drain", None),
    ("POST", "/engines/e1/resume", None),
    ("DELETE", "/engines/e1", None),
    ("GET", "/version", None),
    ("GET", "/status", None),
    ("GET", "/metrics", None),
    ("GET", "/plugins", None),
]
SPELLINGS = ["", "/", "v1", "v1/"]


def spelt(path: str, how: str) -> str:
    path = path.rstrip("/") + ("/" if how.endswith("/") else "")
    return "/api/v1" + path if how.startswith("v1") else path


@pytest.mark.parametrize("how", SPELLINGS, ids=["bare", "slash", "v1", "v1 slash"])
@pytest.mark.parametrize("method,path,body", ORIGINAL + OURS)
async def test_every_endpoint_answers_200_however_its_path_is_spelt(
    farm: Farm, method: str, path: str, body: Any, how: str
) -> None:
    job = await farm.submit()
    await farm.beat()
    target = spelt(path.replace("{id}", job["job_id"]), how)
    reply = await farm.client.request(method, target, body)
    assert reply.status == 200, reply.body


@pytest.mark.parametrize("method,path,body", ORIGINAL + OURS)
async def test_every_endpoint_needs_a_key_and_says_so_with_the_originals_sentence(
    farm: Farm, method: str, path: str, body: Any
) -> None:
    target = path.replace("{id}", (await farm.submit())["job_id"])
    await farm.beat()
    before = farm.stored()
    missing = problem(await farm.daemon.anonymous.request(method, target, body), 401)
    assert missing["detail"] == "Unauthorized: Missing 'X-API-Key' header."
    wrong = problem(await farm.client.request(method, target, body, {"X-API-Key": "no"}), 401)
    assert wrong["detail"] == "Unauthorized"
    assert farm.stored() == before


@pytest.mark.parametrize("method,path,body", [row for row in ORIGINAL if "{id}" in row[1]])
async def test_an_unknown_job_is_404(farm: Farm, method: str, path: str, body: Any) -> None:
    reply = await farm.client.request(method, path.replace("{id}", "1704067200123456_0"), body)
    assert problem(reply, 404)["detail"] == "Job not found"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY},
        {"x-api-key": KEY},
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY}"},
        {"X-API-Key": KEY, "Authorization": "Bearer wrong"},
        {"X-API-Key": "", "Authorization": f"Bearer {KEY}"},
    ],
)
async def test_the_key_is_accepted_as_header_or_bearer(
    daemon: Daemon, headers: dict[str, str]
) -> None:
    assert (await daemon.anonymous.request("GET", "/jobs/", None, headers)).status == 200


@pytest.mark.parametrize(
    "headers,detail",
    [
        ({}, "Unauthorized: Missing 'X-API-Key' header."),
        ({"X-API-Key": ""}, "Unauthorized: Missing 'X-API-Key' header."),
        ({"Authorization": "Bearer"}, "Unauthorized: Missing 'X-API-Key' header."),
        ({"Authorization": f"Basic {KEY}"}, "Unauthorized: Missing 'X-API-Key' header."),
        ({"X-API-Key": KEY + "x"}, "Unauthorized"),
        ({"X-API-Key": KEY[:-1]}, "Unauthorized"),
        ({"X-API-Key": KEY.upper()}, "Unauthorized"),
        ({"X-API-Key": "wrong", "Authorization": f"Bearer {KEY}"}, "Unauthorized"),
        ({"X-API-Key": "\u00ff" * 9}, "Unauthorized"),
    ],
)
async def test_any_other_key_is_401_with_www_authenticate(
    daemon: Daemon, headers: dict[str, str], detail: str
) -> None:
    reply = await daemon.anonymous.request("GET", "/jobs/", None, headers)
    assert problem(reply, 401)["detail"] == detail
    assert reply.headers["www-authenticate"] == "Bearer"


async def test_a_key_in_the_query_is_ignored(daemon: Daemon) -> None:
    problem(await daemon.anonymous.get(f"/jobs/?api_key={KEY}"), 401)


async def test_the_key_is_checked_before_the_body_is_read(daemon: Daemon) -> None:
    stream = await daemon.connect()
    await stream.send_all(
        b"POST /jobs/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
        b"Content-Type: application/json\r\n\r\n"
    )
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 401 ")
    await stream.aclose()


async def test_the_health_checks_need_no_key(daemon: Daemon) -> None:
    home = await daemon.anonymous.get("/")
    assert (home.status, home.body, home.headers["content-type"]) == (200, b"OK", "text/plain")
    assert (await daemon.anonymous.get("/livez")).status == 200
    ready = await daemon.anonymous.get("/readyz")
    assert ready.json() == {"ready": True, "causes": {}}


@pytest.mark.parametrize("path", ["/nothing", "/jobs/1/nothing", "/api/v2/jobs/", "/jobs/a/b/c"])
async def test_an_unknown_path_is_404(daemon: Daemon, path: str) -> None:
    problem(await daemon.client.get(path), 404)


@pytest.mark.parametrize(
    "method,path,allow",
    [
        ("DELETE", "/jobs/", "GET, HEAD, OPTIONS, POST"),
        ("PUT", "/jobs/1", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("GET", "/assign_job/", "OPTIONS, POST"),
        ("POST", "/", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_wrong_method_is_405_and_names_the_right_ones(
    daemon: Daemon, method: str, path: str, allow: str
) -> None:
    reply = await daemon.client.request(method, path)
    problem(reply, 405)
    assert reply.headers["allow"] == allow


async def test_a_body_of_another_type_is_415(daemon: Daemon) -> None:
    reply = await daemon.client.post("/jobs/", b"a=1", content_type="text/plain")
    problem(reply, 415)


async def test_the_examples_of_the_originals_readme_work_in_its_order(farm: Farm) -> None:
    client = farm.client
    job = ok(await client.post("/jobs/", originals.SUBMISSION))
    nine = dict(list(job.items())[:9])
    assert nine == {"job_id": job["job_id"], **originals.JOB}
    assert list(job)[:9] == list(nine)
    job_id = job["job_id"]
    assert (await farm.job(job_id))["status"] == "pending"
    assert [j["job_id"] for j in (await client.get("/jobs/")).json()] == [job_id]
    beat = ok(await client.post("/engines/heartbeat", originals.ENGINE))
    assert beat["message"] == "Heartbeat received from engine engine-001"
    given = ok(await client.post("/assign_job/", {}))
    assert (given["job_id"], given["status"]) == (job_id, "assigned")
    assert given["assigned_engine"] == "engine-001"
    done = ok(
        await client.post(f"/jobs/{job_id}/complete", {"output_url": "http://example.com/o.mp4"})
    )
    assert done["message"] == f"Job {job_id} marked as completed"
    assert done["job"]["status"] == "completed"
    late = {"error_message": "Transcoding failed due to codec incompatibility"}
    problem(await client.post(f"/jobs/{job_id}/fail", late), 409)


async def test_a_job_of_the_original_fails_back_into_the_queue_until_its_retries_are_used(
    farm: Farm,
) -> None:
    job = await farm.submit(max_retries=1)
    failure = {"error_message": "no luck"}
    first = ok(await farm.client.post(f"/jobs/{job['job_id']}/fail", failure))
    assert first["message"] == f"Job {job['job_id']} re-queued"
    assert (first["job"]["status"], first["job"]["retries"]) == ("pending", 1)
    second = ok(await farm.client.post(f"/jobs/{job['job_id']}/fail", failure))
    assert second["message"] == f"Job {job['job_id']} failed permanently"
    assert second["job"]["error_message"] == "no luck"


async def test_nothing_to_assign_is_204(farm: Farm) -> None:
    reply = await farm.client.post("/assign_job/", {})
    assert (reply.status, reply.body) == (204, b"")


async def test_an_engine_that_never_sent_a_heartbeat_gets_no_job(farm: Farm) -> None:
    await farm.submit()
    problem(await farm.client.post("/assign_job/", {"engine_id": "stranger"}), 404)


async def test_asking_for_work_without_a_body_is_asking_with_an_empty_object(farm: Farm) -> None:
    assert (await farm.client.post("/assign_job/")).status == 204
