"""Test the access log and the observers."""

import logging
import re

import pytest
from tests.edge.kit import KEY, Journal, Site, get, open_site, post, small_app

from distconvd.edge.access import Exchange
from distconvd.edge.app import App
from distconvd.edge.http import Request, Response, Route


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "distconvd.access"]


async def test_an_access_line_has_method_path_status_bytes_and_duration(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    said = await site.talk(get("/api/v1/jobs/1%202/?token=secret"))
    (record,) = lines(caplog)
    assert re.fullmatch(
        rf"GET /api/v1/jobs/1%202/ 200 {len(said)} B \d+ ms total", record.getMessage()
    )


async def test_an_access_line_has_its_values_as_fields(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await site.talk(get("/locked", KEY, "X-Request-Id: r-1"))
    fields = vars(lines(caplog)[0])
    wanted = {
        "method": "GET",
        "path": "/locked",
        "status": 200,
        "peer": "client:1",
        "key_name": "tester",
        "request_id": "r-1",
        "job_id": "17",
    }
    assert {name: fields[name] for name in wanted} == wanted
    assert fields["duration_ms"] >= 0


async def test_keys_and_queries_are_never_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await site.talk(get("/locked?key=hush", "X-API-Key: hush-hush", "Authorization: Bearer hush"))
    assert "hush" not in "".join(str(vars(record)) for record in caplog.records)


async def test_invalid_http_has_an_access_line(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await site.talk(b"\x00\r\n\r\n")
    assert lines(caplog)[0].getMessage().startswith("- - 400 ")


async def test_every_request_of_a_connection_counts_its_own_bytes(
    site: Site, journal: Journal
) -> None:
    said = await site.talk(get("/") + post("/echo", b"x" * 500) + get("/stream"))
    assert sum(exchange.bytes_sent for exchange in journal.exchanges) == len(said)
    assert [exchange.status for exchange in journal.exchanges] == [200, 200, 200]


async def test_observers_see_the_route_that_matched(site: Site, journal: Journal) -> None:
    await site.talk(get("/jobs/1") + get("/nope"))
    first, second = journal.exchanges
    assert first.route is not None
    assert first.route.pattern == "/jobs/{id}"
    assert second.route is None


async def test_an_exception_in_an_observer_does_not_affect_replies(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_exchange: Exchange) -> None:
        raise RuntimeError("a bug")

    app = small_app(Journal())
    app.observers = [fail]
    async with open_site(app) as site:
        assert [reply.status for reply in await site.ask(get("/") * 2)] == [200, 200]
    assert "an observer of requests failed" in caplog.text


async def test_a_handler_s_log_field_cannot_replace_one_of_the_edge_or_of_logging(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handle(request: Request) -> Response:
        request.log.update(status=999, name="forged", message="forged", engine_id="e1")
        return Response()

    caplog.set_level(logging.INFO, logger="distconvd")
    app = small_app(Journal(), Route("GET", "/x", handle, role="public"))
    async with open_site(app) as site:
        await site.talk(get("/x"))
    fields = vars(lines(caplog)[0])
    assert (fields["status"], fields["name"], fields["engine_id"]) == (
        200,
        "distconvd.access",
        "e1",
    )


async def test_a_failed_handler_with_a_forged_log_field_is_still_answered_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handle(request: Request) -> Response:
        request.log.update(name="forged", message="forged", job_id="1_0")
        raise RuntimeError("a bug")

    caplog.set_level(logging.INFO, logger="distconvd")
    app = small_app(Journal(), Route("GET", "/x", handle, role="public"))
    async with open_site(app) as site:
        (reply,) = await site.ask(get("/x"))
    assert reply.status == 500
    (log_record,) = [r for r in caplog.records if r.name == "distconvd.edge"]
    assert vars(log_record)["job_id"] == "1_0"
    assert vars(log_record)["request_id"] == vars(lines(caplog)[0])["request_id"]


async def test_nothing_is_formatted_when_the_log_is_off(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="distconvd")
    async with open_site(app) as site:
        await site.talk(get("/"))
    assert caplog.records == []
