"""Check that HTTP and websockets take the same reports, and refuse the same senders."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, get_args

import pytest
import trio
from tests.api.kit import problem
from tests.push.kit import Wall
from trio.testing import MockClock

from distconv_engine.daemon_link.http import NOT_ASSIGNED
from distconvd.api.reporting import REPORTS, ReportName
from distconvd.auth_keys.key_file import add_key
from distconvd.model.push import FromEngine, ReportMessage
from distconvd.push.inbox import REPORT_NAMES
from distconvd.testing.daemon import Daemon, open_daemon
from distconvd.testing.engine import VirtualEngine

NOW_MS = 1_700_000_000_000
BODIES: dict[ReportName, dict[str, Any]] = {
    "complete": {"output_url": "file:///o"},
    "fail": {"error_message": "no"},
    "release": {"engine_id": "e2", "reason": "no"},
    "progress": {"fraction": 0.5},
}
MESSAGES = {name: str(kind.__struct_config__.tag) for kind, name in REPORT_NAMES.items()}


class Site:
    """A daemon with a key for each of two engines; e1 has a job."""

    def __init__(self, daemon: Daemon, keys: dict[str, str]) -> None:
        self.daemon = daemon
        self.keys = keys
        self.clients = {name: daemon.client_with({"x-api-key": key}) for name, key in keys.items()}
        self.job_id = ""

    async def begin(self) -> None:
        job = {"source_url": "file:///a.mov", "target_codec": "h264"}
        await self.clients["root"].post("/jobs/", job)
        engine = VirtualEngine(self.daemon, "e1", client=self.clients["e1"])
        await engine.beat()
        self.job_id = (await engine.must_ask())["job_id"]


@pytest.fixture
async def site(tmp_path: Path, autojump_clock: MockClock) -> AsyncGenerator[Site]:
    path = tmp_path / "keys.json"
    keys = {
        "e1": add_key(path, "e1", ["engine"], NOW_MS, engine="e1"),
        "e2": add_key(path, "e2", ["engine"], NOW_MS, engine="e2"),
        "any": add_key(path, "any", ["engine"], NOW_MS),
        "root": add_key(path, "root", ["admin"], NOW_MS),
    }
    async with open_daemon(key_file=str(path)) as daemon:
        site = Site(daemon, keys)
        await site.begin()
        yield site


def test_every_report_can_be_made_by_http_and_by_websocket() -> None:
    sent = {kind for kind in get_args(FromEngine) if issubclass(kind, ReportMessage)}
    assert set(REPORT_NAMES) == sent
    assert set(REPORT_NAMES.values()) == set(REPORTS) == set(get_args(ReportName))


@pytest.mark.parametrize("name", REPORTS)
async def test_a_key_of_one_engine_reports_on_no_other_engines_job_by_either_transport(
    site: Site, nursery: trio.Nursery, name: ReportName
) -> None:
    before = dict(site.daemon.parts.dispatcher.state.jobs)
    body = {**BODIES[name], "attempt": 1}
    by_http = await site.clients["e2"].post(f"/jobs/{site.job_id}/{name}", body)
    wall = Wall(site.daemon, nursery)
    engine = await wall.plug("e2", key=site.keys["e2"])
    by_websocket = await engine.ask(MESSAGES[name], body, job_id=site.job_id)
    assert by_websocket["problem"]["status"] == 403
    assert by_websocket["problem"]["type"] == NOT_ASSIGNED
    shown = problem(by_http, 403)
    assert by_websocket["problem"] == {name: shown[name] for name in by_websocket["problem"]}
    assert site.daemon.parts.dispatcher.state.jobs == before
    await wall.hang_up()


@pytest.mark.parametrize("name", ["complete", "fail"])
async def test_under_a_key_for_any_engine_the_attempt_number_decides_and_its_lack_refuses(
    site: Site, nursery: trio.Nursery, name: ReportName
) -> None:
    wall = Wall(site.daemon, nursery)
    engine = await wall.plug("e2", key=site.keys["any"])
    statuses = [
        (await engine.ask(MESSAGES[name], BODIES[name] | number, job_id=site.job_id))["problem"][
            "status"
        ]
        for number in ({"attempt": 1}, {})
    ]
    assert statuses == [409, 403]
    await wall.hang_up()
