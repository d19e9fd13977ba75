"""Test `ETag`, `If-None-Match` and `If-Match` on jobs."""

from typing import Any

import pytest
from tests.api.kit import Farm, ok, problem

from distconvd.testing.daemon import Reply


async def tag(farm: Farm, job_id: str) -> str:
    return (await farm.client.get(f"/jobs/{job_id}")).headers["etag"]


async def test_the_version_changes_when_the_job_does_and_only_then(farm: Farm) -> None:
    job_id = (await farm.submit())["job_id"]
    first = await tag(farm, job_id)
    assert await tag(farm, job_id) == first
    changed = await farm.client.patch(f"/jobs/{job_id}", {"priority": 2})
    assert changed.headers["etag"] == await tag(farm, job_id) != first


async def test_a_submission_returns_the_version(farm: Farm) -> None:
    reply = await farm.client.post("/jobs/", {"source_url": "http://h/a", "target_codec": "av1"})
    assert reply.headers["etag"] == await tag(farm, reply.json()["job_id"])


@pytest.mark.parametrize("form", ["{}", "W/{}", '"x", {}', '"x",W/{} , "y"', "*"])
async def test_a_job_whose_version_is_known_is_304(farm: Farm, form: str) -> None:
    job_id = (await farm.submit())["job_id"]
    version = await tag(farm, job_id)
    reply = await farm.client.get(f"/jobs/{job_id}", if_none_match=form.format(version))
    assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", version)


@pytest.mark.parametrize("form", ['"x"', "", 'W/"x"'])
async def test_a_job_of_another_version_is_sent(farm: Farm, form: str) -> None:
    job = await farm.submit()
    reply = await farm.client.request(
        "GET", f"/jobs/{job['job_id']}", None, {"If-None-Match": form}
    )
    assert ok(reply) == job


async def edit(farm: Farm, how: str, job_id: str, if_match: str) -> Reply:
    path = f"/jobs/{job_id}"
    body: Any = None
    if how == "PATCH":
        body = {"priority": 1}
    elif how == "POST":
        path += "/retry"
    return await farm.client.request(how, path, body, {"If-Match": if_match})


@pytest.mark.parametrize("how", ["PATCH", "DELETE", "POST"])
async def test_a_change_with_another_version_is_412_and_changes_nothing(
    farm: Farm, how: str
) -> None:
    job_id = (await farm.submit())["job_id"]
    if how == "POST":
        await farm.client.delete(f"/jobs/{job_id}")
    version = await tag(farm, job_id)
    before = farm.stored()
    for stale in ('"x"', f"W/{version}", '"x", "y"'):
        problem(await edit(farm, how, job_id, stale), 412)
    assert farm.stored() == before
    assert (await edit(farm, how, job_id, f'"x", {version}')).status == 200


@pytest.mark.parametrize("how", ["PATCH", "DELETE"])
async def test_a_star_matches_any_version(farm: Farm, how: str) -> None:
    job_id = (await farm.submit())["job_id"]
    assert (await edit(farm, how, job_id, "*")).status == 200


async def test_a_version_of_an_unknown_job_is_404(farm: Farm) -> None:
    problem(await edit(farm, "PATCH", "1_0", '"x"'), 404)
