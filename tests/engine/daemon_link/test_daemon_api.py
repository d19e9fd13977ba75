"""Test that every answer of a daemon is either final or worth another try."""

import io
import json
import logging
from pathlib import Path

import httpx
import msgspec
import pytest

from distconv_engine.config import Config
from distconv_engine.daemon_link.heartbeats import Heartbeats
from distconv_engine.daemon_link.http import DaemonApi, DaemonUnavailable, Rejected
from distconv_engine.logs import Log, setup_logs
from distconv_engine.status import EngineStatus
from distconv_engine.transfer.remote import RemoteFile
from distconvd.auth import same_key
from distconvd.edge.problems import document_of
from distconvd.errors import DistconvError, Forbidden, NotAssigned, Unauthorized
from distconvd.model import Heartbeat, HeartbeatReply, ProgressReport


def api(handler: httpx.MockTransport) -> DaemonApi:
    return DaemonApi(httpx.AsyncClient(transport=handler), "http://d/base/", "secret")


def answering(status: int, content: bytes = b"{}") -> httpx.MockTransport:
    return httpx.MockTransport(lambda request: httpx.Response(status, content=content))


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_an_overloaded_daemon_is_unavailable(status: int) -> None:
    with pytest.raises(DaemonUnavailable):
        await api(answering(status)).heartbeat(Heartbeat("e1"))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
async def test_a_4xx_of_the_daemon_is_a_final_rejection(status: int) -> None:
    with pytest.raises(Rejected) as caught:
        await api(answering(status, b'{"detail": "stale"}')).heartbeat(Heartbeat("e1"))
    assert (caught.value.status, caught.value.detail) == (status, "stale")


@pytest.mark.parametrize(
    "error, is_key_trouble", [(Unauthorized, True), (Forbidden, True), (NotAssigned, False)]
)
async def test_only_a_rejection_that_another_key_would_change_is_key_trouble(
    error: type[DistconvError], is_key_trouble: bool
) -> None:
    content = msgspec.json.encode(document_of(error("no")))
    with pytest.raises(Rejected) as caught:
        await api(answering(error.status, content)).report("1_1", "complete", b"{}")
    assert caught.value.is_key_trouble == is_key_trouble


@pytest.mark.parametrize("content", [b"<html>proxy</html>", b"[]", b'{"message": 5}', b"\xff"])
async def test_an_answer_that_cannot_be_decoded_means_that_the_daemon_is_unavailable(
    content: bytes,
) -> None:
    with pytest.raises(DaemonUnavailable):
        await api(answering(200, content)).heartbeat(Heartbeat("e1"))


async def test_a_failed_connection_means_that_the_daemon_is_unavailable() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("black hole", request=request)

    with pytest.raises(DaemonUnavailable):
        await api(httpx.MockTransport(fail)).assign("e1", 1)


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(307, headers={"Location": "http://other/"})

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer), follow_redirects=True)
    with pytest.raises(DaemonUnavailable):
        await DaemonApi(client, "http://d", "secret").report("1", "complete", b"{}")
    assert seen == ["d"]


async def test_assign_requests_a_long_poll_and_returns_none_without_work() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(204)

    assert await api(httpx.MockTransport(answer)).assign("e1", 30) is None
    assert seen[0].headers["Prefer"] == "wait=30"
    assert seen[0].headers["X-API-Key"] == "secret"
    assert json.loads(seen[0].content) == {"engine_id": "e1"}


async def test_ids_are_quoted_in_paths() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path.decode())
        return httpx.Response(200, content=b'{"job_id": "x", "attempt": 1, "verdict": "keep"}')

    await api(httpx.MockTransport(answer)).progress("../a b?", ProgressReport(1))
    assert seen == ["/base/jobs/..%2Fa%20b%3F/progress"]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def test_text_logs_are_one_line_per_event(stream: io.StringIO) -> None:
    setup_logs("info", "text", stream)
    log = Log(engine_id="e1").bind(job_id="1_1")
    log.debug("not shown")
    log.info("job done", reason="two\nlines", empty="")
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert 'INFO    job done engine_id=e1 job_id=1_1 reason="two\\nlines" empty=""' in line


def test_json_logs_are_one_object_per_line(stream: io.StringIO) -> None:
    setup_logs("debug", "json", stream)
    Log(engine_id="e1").error("bad", count=3, path=object)
    found = json.loads(stream.getvalue())
    assert (found["level"], found["event"], found["count"]) == ("error", "bad", 3)
    assert logging.getLogger("distconv_engine").propagate is False


async def test_a_key_beyond_ascii_is_sent_as_the_daemon_compares_it() -> None:
    seen = [dict(RemoteFile("http://d/media/a", "clé").headers().raw)[b"X-API-Key"]]

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(dict(request.headers.raw)[b"X-API-Key"])
        return httpx.Response(204)

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    await DaemonApi(client, "http://d", "clé").assign("e1", 1)
    assert [same_key(value.decode("latin-1"), "clé") for value in seen] == [True, True]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_rejected_key_is_logged_once_with_a_remedy_until_it_is_accepted(
    status: int, stream: io.StringIO, tmp_path: Path
) -> None:
    statuses = iter([status, status, status, 200, 200, status])

    def answer(request: httpx.Request) -> httpx.Response:
        reply = HeartbeatReply("", [], "idle")
        return httpx.Response(next(statuses), content=msgspec.json.encode(reply))

    setup_logs("info", "text", stream)
    engine_status = EngineStatus(Config(work_dir=tmp_path), "e1", "host")
    beats = Heartbeats(api(httpx.MockTransport(answer)), engine_status, Log())
    for _ in range(6):
        await beats.send_and_wait()
    first, registered, again = stream.getvalue().splitlines()
    assert "registered with the daemon" in registered
    for line in (first, again):
        assert "ERROR   the daemon rejects this key" in line
        assert all(call in line for call in ("DISTCONV_API_KEY", "--api-key-file", 'or --api-key"'))
