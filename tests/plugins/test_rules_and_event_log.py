"""`submission-rules` lets in what its rules say, and `event-log` logs what happened."""

import logging
from typing import Any

import pytest

from distconvd.errors import ConfigError
from distconvd.testing.daemon import KEY, Daemon, open_daemon
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


async def test_a_job_that_its_callers_first_rule_allows_is_let_in_with_the_name_of_its_key() -> (
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


async def test_a_caller_that_no_rule_fits_may_submit_anything() -> None:
    rules = {"rules": [{"callers": ["web-*"], "codecs": ["vp9"]}]}
    async with open_daemon(plugin={"submission-rules": rules}) as daemon:
        made = await daemon.client.post("/jobs/", JOB | {"priority": 2})
        assert (made.status, made.json()["labels"]) == (200, {})


async def logged(daemon: Daemon) -> None:
    one = VirtualEngine(daemon, "e1")
    await one.beat()
    await daemon.client.post("/jobs/", JOB)
    await one.complete(await one.must_ask())


async def test_an_event_that_was_asked_for_is_a_log_line_with_its_job_and_engine(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    wanted = {"event-log": {"events": ["job.assigned", "job.c*"]}}
    async with open_daemon(plugin=wanted, api_key=KEY) as daemon:
        await logged(daemon)
    said = [r for r in caplog.records if r.name == "distconvd.events"]
    assert [r.getMessage() for r in said] == ["job.assigned", "job.completed"]
    assert {vars(r)["engine_id"] for r in said} == {"e1"}
    assert {vars(r)["attempt"] for r in said} == {1}
    assert vars(said[0])["job_id"] == vars(said[1])["job_id"]


async def test_no_event_is_logged_where_none_was_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with open_daemon() as daemon:
        await logged(daemon)
    assert "distconvd.events" not in {r.name for r in caplog.records}


async def test_a_pattern_that_fits_no_event_stops_the_start() -> None:
    with pytest.raises(ConfigError, match=r"\[plugin.event-log\] events: 'jobs.\*'"):
        async with open_daemon(plugin={"event-log": {"events": ["jobs.*"]}}):
            pass


class TestEventLog(ListenerSuite):
    """Also with everything to be logged, an event costs next to nothing."""

    @pytest.fixture
    def listener(self) -> FunctionListener:
        from distconv_plugins.event_log import distconvd_event
        from distconvd.config import Config
        from distconvd.plugins import Context

        context = Context(Config(plugin={"event-log": {"events": ["*"]}}))
        return FunctionListener(lambda event: distconvd_event(event, context))
