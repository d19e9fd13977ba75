"""`submission-rules` accepts what its rules allow, and `event-log` writes events to a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from distconv_plugins.event_log import distconvd_event
from distconvd.config import Config
from distconvd.errors import ConfigError
from distconvd.plugin_host.loading import Context
from distconvd.testing.daemon import Daemon, open_daemon
from distconvd.testing.engine import VirtualEngine
from distconvd.testing.listener_suite import FunctionListener, ListenerSuite

JOB: dict[str, Any] = {"source_url": "file:///a.mov", "target_codec": "h264", "job_size": 10}
RULES: dict[str, Any] = {
    "caller_label": "submitted_by",
    "rules": [
        {"callers": ["nobody-*"], "codecs": ["vp8"]},
        {
            "callers": ["api-key", "local"],
            "codecs": ["h264", "hevc"],
            "priority_max": 1,
            "job_size_mb_max": 100,
            "labels": ["project"],
        },
        {"callers": ["*"], "codecs": ["vp9"]},
    ],
}
GOOD = JOB | {"labels": {"project": "bunny", "submitted_by": "somebody else"}}


async def test_a_job_that_its_callers_first_rule_allows_is_accepted_and_labelled_with_the_key() -> (
    None
):
    async with open_daemon(plugin={"submission-rules": RULES}) as daemon:
        for codec in ("h264", "h265", "HEVC"):
            made = await daemon.client.post("/jobs/", GOOD | {"target_codec": codec, "priority": 1})
            assert made.status == 200
            assert made.json()["labels"] == {"project": "bunny", "submitted_by": "api-key"}


@pytest.mark.parametrize(
    "change, field",
    [
        ({"target_codec": "vp9"}, "target_codec"),
        ({"target_codec": "vp8"}, "target_codec"),
        ({"priority": 2}, "priority"),
        ({"job_size": 100.5}, "job_size"),
        ({"labels": {}}, "labels"),
        ({"labels": {"project": ""}}, "labels"),
    ],
)
async def test_a_job_that_breaks_the_rule_is_refused_with_the_field_and_what_is_allowed(
    change: dict[str, Any], field: str
) -> None:
    async with open_daemon(plugin={"submission-rules": RULES}) as daemon:
        refused = await daemon.client.post("/jobs/", GOOD | change)
        assert (refused.status, refused.json()["field"]) == (400, field)
        assert "'api-key'" in refused.json()["detail"]


async def test_a_caller_that_no_rule_matches_may_submit_anything() -> None:
    rules = {"rules": [{"callers": ["web-*"], "codecs": ["vp9"]}]}
    async with open_daemon(plugin={"submission-rules": rules}) as daemon:
        made = await daemon.client.post("/jobs/", JOB | {"priority": 2})
        assert (made.status, made.json()["labels"]) == (200, {})


async def job_is_done(daemon: Daemon) -> None:
    one = VirtualEngine(daemon, "e1")
    await one.beat()
    await daemon.client.post("/jobs/", JOB)
    await one.complete(await one.must_ask())


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_chosen_event_is_logged_as_a_line_with_the_record_at_that_moment(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.ndjson"
    wanted = {"event-log": {"file": str(path), "events": ["job.assigned", "job.c*"]}}
    async with open_daemon(plugin=wanted) as daemon:
        await job_is_done(daemon)
    logged = lines_of(path)
    assert [line["kind"] for line in logged] == ["job.assigned", "job.completed"]
    assert [line["record"]["status"] for line in logged] == ["assigned", "completed"]
    assert [(line["engine_id"], line["attempt"]) for line in logged] == [("e1", 1), ("e1", 1)]
    assert path.stat().st_mode & 0o007 == 0, "others may not read it"


async def test_the_event_log_may_be_moved_away_at_any_time(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    async with open_daemon(plugin={"event-log": {"file": str(path)}}) as daemon:
        await daemon.client.post("/jobs/", JOB)
        path.rename(tmp_path / "old.ndjson")
        await daemon.client.post("/jobs/", JOB)
    assert len(lines_of(path)) == len(lines_of(tmp_path / "old.ndjson")) == 1


async def test_a_disk_error_is_reported_and_counted_and_delays_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = str(tmp_path / "no" / "such" / "folder")
    async with open_daemon(plugin={"event-log": {"file": nowhere}}) as daemon:
        assert (await daemon.client.post("/jobs/", JOB)).status == 200
        assert daemon.parts.event_bus.failures == {"event-log": 1}
    assert "No such file or directory" in caplog.text


async def test_a_pattern_that_matches_no_event_stops_the_start() -> None:
    with pytest.raises(ConfigError, match=r"\[plugin.event-log\] events: 'jobs.\*'"):
        async with open_daemon(plugin={"event-log": {"events": ["jobs.*"]}}):
            pass


class TestEventLog(ListenerSuite):
    """An event costs little even when all kinds are written."""

    @pytest.fixture
    def listener(self, tmp_path: Path) -> FunctionListener:
        table = {"file": str(tmp_path / "events.ndjson"), "events": ["*"]}
        context = Context(Config(plugin={"event-log": table}))
        return FunctionListener(lambda event: distconvd_event(event, context))
