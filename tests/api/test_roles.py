"""Test which role may call what: one table, checked on every route with every role."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.api.kit import Farm, problem
from tests.api.test_submissions import CALLERS

from distconvd.api.openapi.route_table import role_table
from distconvd.testing.daemon import Daemon, open_daemon

TABLE = """
GET / public
GET /livez public
GET /readyz public
GET /version read
GET /status read
GET /metrics read
GET /plugins read
GET /openapi.json read
POST /jobs submit
GET /jobs read
GET /jobs/{job_id} read
PATCH /jobs/{job_id} submit
DELETE /jobs/{job_id} submit
POST /jobs/{job_id}/retry submit
GET /jobs/{job_id}/attempts read
GET /jobs/{job_id}/why read
POST /jobs/{job_id}/complete engine
POST /jobs/{job_id}/fail engine
POST /jobs/{job_id}/release engine
POST /jobs/{job_id}/progress engine
POST /engines/heartbeat engine
POST /engines/benchmark_result engine
POST /assign_job engine
GET /engines read
GET /engines/{engine_id} read
DELETE /engines/{engine_id} admin
POST /engines/{engine_id}/benchmark admin
POST /engines/{engine_id}/drain admin
POST /engines/{engine_id}/resume admin
GET /events read
GET /media/{name...} read
HEAD /media/{name...} read
PUT /media/{name...} engine
GET /engines/{engine_id}/ws engine
"""
ROWS = [tuple(line.split()) for line in TABLE.strip().splitlines()]


@pytest.fixture
async def roles(tmp_path: Path) -> AsyncGenerator[Daemon]:
    """A daemon whose keys are `NAME:ROLE,ROLE`."""
    plugin = tmp_path / "callers.py"
    plugin.write_text(CALLERS)
    async with open_daemon(plugins=[str(plugin)], auth="by-name") as daemon:
        yield daemon


async def test_the_role_table_lists_exactly_the_routes(daemon: Daemon) -> None:
    found = {(r.method, r.pattern, r.role) for r in daemon.parts.routes}
    assert found == set(ROWS)


@pytest.mark.parametrize("method,pattern,role", ROWS)
async def test_each_route_is_open_only_to_its_roles(
    roles: Daemon, method: str, pattern: str, role: str
) -> None:
    path = pattern.replace("{job_id}", "1_0").replace("{engine_id}", "x").replace("{name...}", "x")
    body = b"{}" if method in ("POST", "PATCH") else None
    for mine in ("read", "submit", "engine"):
        client = roles.client_with({"X-API-Key": f"k:{mine}"})
        async with client.exchange(method, path, body) as (reply, _):
            is_refused = reply.status == 403
        assert is_refused == (role not in (mine, "public")), (mine, reply.status)
    async with roles.client_with({"X-API-Key": "k:admin"}).exchange(method, path, body) as (r, _):
        assert r.status not in (401, 403)


async def test_a_403_names_the_missing_role(roles: Daemon) -> None:
    client = roles.client_with({"X-API-Key": "kay:read"})
    answer = problem(await client.post("/jobs/", {}), 403)
    assert "'kay'" in answer["detail"]
    assert "'submit'" in answer["detail"]


async def test_a_key_with_two_roles_may_do_both(roles: Daemon) -> None:
    farm = Farm(roles)
    farm.client = roles.client_with({"X-API-Key": "k:submit,read"})
    job = await farm.submit()
    assert await farm.job(job["job_id"]) == job


async def test_every_route_has_a_summary_and_the_table_can_be_printed(daemon: Daemon) -> None:
    assert all(route.summary for route in daemon.parts.routes)
    table = role_table(daemon.parts.routes)
    assert "| POST | `/jobs/` | `submit` | Submit a job, or several |" in table
    assert len(table.splitlines()) == len(daemon.parts.routes) + 2
