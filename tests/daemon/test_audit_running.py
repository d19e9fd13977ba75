"""The audit of a running daemon, on replies that are sound, corrupt, or change meanwhile."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import pytest
from tests.core.kit import Core

from distconvd.commands.audit import running
from distconvd.commands.audit.asking import RemoteDaemon
from distconvd.commands.audit.running import RunningAudit
from distconvd.errors import ConfigError


class Replies:
    """A daemon's replies, from a real core, which `corrupt` may change on their way."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.asked: list[str] = []
        self.slept = 0
        self.corrupt: Callable[[str, Any], Any] = lambda path, reply: reply

    def get(self, path: str) -> tuple[bytes, str | None]:
        self.asked.append(path)
        parts = urlsplit(path)
        segments = [unquote(part) for part in parts.path.strip("/").split("/")]
        cursor: str | None = None
        reply: Any
        if segments == ["jobs"]:
            reply, cursor = self._page(parse_qs(parts.query))
        elif segments == ["engines"]:
            reply = [self.core.view(engine_id) for engine_id in self.core.disk["engines"]]
        elif not self._is_there(*segments[:2]):
            raise LookupError(path)
        elif segments[0] == "engines":
            reply = self.core.view(segments[1])
        elif segments[2:] == ["attempts"]:
            reply = msgspec.to_builtins(self.core.attempts(segments[1]))
        else:
            reply = msgspec.to_builtins(self.core.job(segments[1]))
        return json.dumps(self.corrupt(parts.path, reply)).encode(), cursor

    def _is_there(self, kind: str, key: str) -> bool:
        return key in self.core.disk["jobs" if kind == "jobs" else "engines"]

    def _page(self, query: dict[str, list[str]]) -> tuple[list[Any], str | None]:
        limit, behind = int(query["limit"][0]), query.get("cursor", [""])[0]
        ids = [job_id for job_id in self.core.dispatcher.state.order if job_id > behind]
        page = [msgspec.to_builtins(self.core.job(job_id)) for job_id in ids[:limit]]
        return page, ids[limit - 1] if len(ids) > limit else None

    def sleep(self, seconds: float) -> None:
        self.slept += 1

    def audit(self) -> list[str]:
        found = RunningAudit(self, self.sleep).findings()
        return [f"{finding.subject} {finding.kind}" for finding in found]


@pytest.fixture
def replies() -> Replies:
    """A farm with a running, a waiting, a reserved and an ended job."""
    core = Core()
    core.engine("E/1", 10.0)
    core.engine("E2", 20.0, supported_codecs=["vp9"])
    core.engine("E3", 20.0)
    core.submit()
    core.complete(core.must_ask("E/1"))
    core.submit()
    core.must_ask("E/1")
    core.submit(10.0)
    core.submit(codec="av1")
    core.ask("E2")
    return Replies(core)


def ids(replies: Replies, status: str) -> list[str]:
    core = replies.core
    return [i for i in core.dispatcher.state.order if core.job(i).status == status]


def test_a_sound_daemon_is_clean_and_nothing_is_checked_twice(replies: Replies) -> None:
    assert replies.audit() == []
    assert replies.slept == 0


def test_pages_are_followed_to_the_end(replies: Replies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PAGE_JOBS", 2)
    audit = RunningAudit(replies, replies.sleep)
    assert list(audit.findings()) == []
    assert audit.jobs == 4


def test_only_a_bounded_number_of_ended_jobs_is_asked_for_attempts(
    replies: Replies, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        replies.core.cancel(replies.core.submit())
    monkeypatch.setattr(running, "ENDED_ASKED_MAX", 2)
    audit = RunningAudit(replies, replies.sleep)
    assert list(audit.findings()) == []
    assert (audit.ended_asked, audit.ended_not_asked) == (2, 2)


def corrupt_engine(engine_id: str, **fields: Any) -> Callable[[str, Any], Any]:
    def corrupt(path: str, reply: Any) -> Any:
        return reply | fields if path == f"/engines/{engine_id}" else reply

    return corrupt


def test_every_index_fault_is_reported(replies: Replies) -> None:
    (runs,) = ids(replies, "assigned")
    (ended,) = ids(replies, "completed")
    replies.corrupt = corrupt_engine("E%2F1", jobs=[])
    assert replies.audit() == [f"job {runs} held-apart"]
    replies.corrupt = corrupt_engine("E3", jobs=[runs])
    assert replies.audit() == [f"job {runs} held-apart"]
    replies.corrupt = corrupt_engine("E3", reserved=[ended, "1_1"])
    assert replies.audit() == [f"job {ended} reserved-apart", "job 1_1 reserved-apart"]
    replies.corrupt = corrupt_engine("E%2F1", slots=0)
    assert replies.audit() == ["engine E/1 over-slots"]


def test_faults_of_jobs_and_attempts_are_reported(replies: Replies) -> None:
    (ended,) = ids(replies, "completed")
    replies.corrupt = lambda path, reply: [] if path == f"/jobs/{ended}/attempts" else reply
    assert replies.audit() == [f"job {ended} attempt-missing"]
    (runs,) = ids(replies, "assigned")
    replies.corrupt = lambda path, reply: (
        reply | {"assigned_engine": "gone"} if path == f"/jobs/{runs}" else reply
    )
    assert f"job {runs} unknown-engine" in replies.audit()


def test_a_job_that_is_listed_twice_is_reported(
    replies: Replies, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies.corrupt = lambda path, reply: [*reply, reply[-1]] if path == "/jobs/" else reply
    last = replies.core.dispatcher.state.order[-1]
    assert replies.audit() == [f"job {last} listed-twice"]


def test_an_inconsistency_between_two_requests_is_not_reported(replies: Replies) -> None:
    seen: list[str] = []

    def corrupt_once(path: str, reply: Any) -> Any:
        seen.append(path)
        return reply | {"jobs": []} if path == "/engines/E%2F1" and seen.count(path) < 3 else reply

    replies.corrupt = corrupt_once
    assert replies.audit() == []
    assert replies.slept == 1


def test_a_job_that_changes_all_the_time_is_not_a_fault(replies: Replies) -> None:
    (runs,) = ids(replies, "assigned")

    def change(path: str, reply: Any) -> Any:
        if path == f"/jobs/{runs}":
            return reply | {"updated_at": len(replies.asked), "attempt": 99}
        return reply

    replies.corrupt = change
    assert replies.audit() == []


# --------------------------------------------------------------------------------- the connection


@contextmanager
def answering(*replies: bytes) -> Iterator[str]:
    """Serve one connection for each reply, which is a whole HTTP message."""

    def serve() -> None:
        for reply in replies:
            connection, _ = server.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/prefix"
        thread.join(20)


def reply(status: str, body: bytes, more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def test_a_daemon_that_answers_503_or_disconnects_is_asked_again() -> None:
    slept: list[float] = []
    busy = reply("503 Service Unavailable", b"{}")
    good = reply("200 OK", b"[]", "X-Next-Cursor: 7\r\n")
    with answering(busy, good) as url, closing(RemoteDaemon(url, "k", slept.append)) as daemon:
        assert daemon.get("/jobs/") == (b"[]", "7")
    assert len(slept) == 1


@pytest.mark.parametrize(
    "status,said", [("403 Forbidden", "403 your key may not read"), ("500 No", "500")]
)
def test_a_refusal_is_reported_in_the_daemons_words(status: str, said: str) -> None:
    body = b'{"detail":"your key may not read"}'
    with answering(reply(status, body)) as url:
        daemon = RemoteDaemon(url, None)
        with closing(daemon), pytest.raises(ConfigError, match=said):
            daemon.get("/jobs/")


def test_a_404_is_a_lookup_error() -> None:
    with answering(reply("404 Not Found", b"")) as url:
        daemon = RemoteDaemon(url, None)
        with closing(daemon), pytest.raises(LookupError):
            daemon.get("/jobs/1")
