"""Test the API client against a fake daemon: requests, repetitions and replies."""

from collections.abc import Callable

import httpx
import msgspec
import pytest
from tests.client.fake import FakeDaemon, found, problem, running

from distconv_client import (
    BadInput,
    Client,
    ClientError,
    Conflict,
    DaemonUnreachable,
    Job,
    JobPatch,
    JobStatus,
    NotFound,
    Refused,
    StillRunning,
    Submission,
    TranscodeOptions,
    Unauthorized,
    UnexpectedReply,
)
from distconv_client.retry import RetryPolicy
from distconvd.auth import same_key

SUBMISSION = Submission("https://example.org/a.mkv", "h265", labels={"show": "bunny"})
DOWN = httpx.ConnectError("[Errno 111] Connection refused")
LATE = httpx.ReadTimeout("timed out")


def test_a_submission_arrives_with_every_field_it_has(daemon: FakeDaemon) -> None:
    submission = Submission(
        "file:///a.mov", "av1", job_size=1.5, priority=2, requires=["gpu"],
        options=TranscodeOptions(crf=30),
    )  # fmt: skip
    job = daemon.client().submit(submission)
    assert (job.source_url, job.job_size, job.priority) == ("file:///a.mov", 1.5, 2)
    assert (job.requires, job.options.crf) == (["gpu"], 30)
    assert daemon.requests[0].url.raw_path == b"/jobs/"
    assert daemon.requests[0].headers["Content-Type"] == "application/json"


def test_the_key_is_sent_only_when_there_is_one(daemon: FakeDaemon) -> None:
    daemon.client(api_key="k").engines()
    daemon.client().engines()
    assert [request.headers.get("X-API-Key") for request in daemon.requests] == ["k", None]


def test_a_path_prefix_of_the_server_is_kept(daemon: FakeDaemon) -> None:
    with pytest.raises(NotFound):
        daemon.client("http://daemon.test/distconv/").job("1")
    assert daemon.requests[0].url.raw_path == b"/distconv/jobs/1"


@pytest.mark.parametrize("job_id", ["a/b", "ä ö", "..", "50%25", "a?b#c", "a b/../c"])
def test_an_id_of_any_characters_names_that_job(daemon: FakeDaemon, job_id: str) -> None:
    daemon.add(job_id=job_id)
    assert daemon.client().job(job_id).job_id == job_id


@pytest.mark.parametrize("fault", [DOWN, LATE, problem(503, "draining"), problem(502, "")])
def test_a_get_is_repeated_after_a_transient_fault(
    daemon: FakeDaemon, fault: httpx.Response | Exception
) -> None:
    job = daemon.add()
    daemon.faults = [fault, fault]
    assert daemon.client().job(job.job_id).job_id == job.job_id
    assert daemon.slept_s == [0.2, 0.4]


def test_a_repeated_submission_makes_one_job(daemon: FakeDaemon) -> None:
    client = daemon.client()
    daemon.faults = [LATE]
    client.submit(SUBMISSION)
    keys = {request.headers["Idempotency-Key"] for request in daemon.requests}
    assert len(daemon.requests) == 2
    assert len(keys) == 1


def test_two_submissions_make_two_jobs_unless_they_share_a_key(daemon: FakeDaemon) -> None:
    client = daemon.client()
    client.submit(SUBMISSION)
    client.submit(SUBMISSION)
    assert len(daemon.jobs) == 2
    client.submit(SUBMISSION, idempotency_key="mine")
    client.submit(SUBMISSION, idempotency_key="mine")
    assert len(daemon.jobs) == 3


UNSAFE: list[Callable[[Client], object]] = [
    lambda client: client.cancel("1"),
    lambda client: client.retry("1"),
    lambda client: client.patch("1", JobPatch(priority=1)),
    lambda client: client.drain_engine("e"),
    lambda client: client.resume_engine("e"),
    lambda client: client.benchmark_engine("e"),
    lambda client: client.pause("1"),
    lambda client: client.forget_engine("e"),
]


@pytest.mark.parametrize("call", UNSAFE)
def test_an_unsafe_request_is_never_repeated(
    daemon: FakeDaemon, call: Callable[[Client], object]
) -> None:
    daemon.faults = [LATE]
    with pytest.raises(DaemonUnreachable):
        call(daemon.client())
    assert len(daemon.requests) == 1


def test_repeating_ends_after_the_last_retry(daemon: FakeDaemon) -> None:
    daemon.faults = [DOWN] * 10
    with pytest.raises(DaemonUnreachable, match=r"http://daemon\.test: Connection refused"):
        daemon.client().engines()
    assert len(daemon.requests) == 4


def test_retry_after_is_honoured_up_to_a_limit(daemon: FakeDaemon) -> None:
    daemon.faults = [problem(503, "x") for _ in range(3)]
    for fault, seconds in zip(daemon.faults, ("3", "99999", "soon"), strict=True):
        assert isinstance(fault, httpx.Response)
        fault.headers["Retry-After"] = seconds
    daemon.client().engines()
    assert daemon.slept_s == [3.0, 10.0, 0.8]


@pytest.mark.parametrize(
    "status, kind",
    [(400, Refused), (401, Unauthorized), (403, Unauthorized), (404, NotFound), (409, Conflict),
     (422, Refused), (500, Refused)],
)  # fmt: skip
def test_a_refusal_has_a_class_and_the_daemons_sentence(
    daemon: FakeDaemon, status: int, kind: type[Refused]
) -> None:
    daemon.faults = [problem(status, "Because of that.")]
    with pytest.raises(Refused, match=r"Because of that\.") as caught:
        daemon.client().cancel("1")
    assert type(caught.value) is kind
    assert caught.value.status == status


def test_a_refusal_names_the_field_that_was_wrong(daemon: FakeDaemon) -> None:
    with pytest.raises(Refused, match="target_codec") as caught:
        daemon.client().submit(Submission("file:///a", "wrong"))
    assert caught.value.field == "target_codec"


def test_a_refusal_without_a_problem_document_is_reported_by_its_status(daemon: FakeDaemon) -> None:
    daemon.faults = [httpx.Response(500, content=b"oops")]
    with pytest.raises(Refused, match="Internal Server Error"):
        daemon.client().cancel("1")


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(200, content=b"OK"),
        httpx.Response(200, content=b"[1, 2]"),
        httpx.Response(302, headers={"Location": "http://elsewhere.test/"}),
        httpx.Response(404, content=b"<html>", headers={"Content-Type": "text/html"}),
        httpx.Response(200, content=b'{"job_id": "1", "status": "unheard-of"}'),
    ],
)
def test_a_server_that_is_not_a_daemon_is_reported(
    daemon: FakeDaemon, reply: httpx.Response
) -> None:
    daemon.faults = [reply]
    with pytest.raises(UnexpectedReply, match="did not answer as distconvd does"):
        daemon.client().job("1")


def test_the_key_is_never_sent_to_the_target_of_a_redirect(daemon: FakeDaemon) -> None:
    daemon.faults = [httpx.Response(307, headers={"Location": "http://elsewhere.test/"})]
    with pytest.raises(UnexpectedReply):
        daemon.client(api_key="k").engines()
    assert [request.url.host for request in daemon.requests] == ["daemon.test"]


def test_unknown_fields_of_a_newer_daemon_are_ignored(daemon: FakeDaemon) -> None:
    document = msgspec.to_builtins(Job("1", "file:///a", "av1")) | {"mood": "good"}
    daemon.faults = [httpx.Response(200, content=msgspec.json.encode(document))]
    assert daemon.client().job("1").target_codec == "av1"


def test_jobs_are_fetched_page_by_page_and_only_as_far_as_needed(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distconv_client.api.PAGE_JOBS", 4)
    ids = [daemon.add().job_id for _ in range(10)]
    client = daemon.client()
    assert [job.job_id for job in client.jobs()] == ids
    assert len(daemon.requests) == 3
    assert [job.job_id for job in client.jobs(limit=5)] == ids[:5]
    assert [request.url.params["limit"] for request in daemon.requests[3:]] == ["4", "1"]
    assert next(client.jobs()).job_id == ids[0]
    assert len(daemon.requests) == 6
    assert [job.job_id for job in client.jobs(newest_first=True)] == ids[::-1]


def test_an_empty_page_with_a_cursor_is_not_the_last_one(daemon: FakeDaemon) -> None:
    job = daemon.add()
    daemon.faults = [found([], **{"X-Next-Cursor": "0"})]
    assert list(daemon.client().jobs()) == [job]


def test_a_cursor_that_does_not_move_ends_the_listing(daemon: FakeDaemon) -> None:
    daemon.faults = [found([], **{"X-Next-Cursor": "7"}) for _ in range(9)]
    assert list(daemon.client().jobs()) == []
    assert len(daemon.requests) == 2


def test_jobs_are_filtered_by_the_daemon(daemon: FakeDaemon) -> None:
    wanted = daemon.add(target_codec="av1", labels={"show": "bunny"})
    daemon.add(target_codec="av1")
    daemon.add(labels={"show": "bunny"})
    fitting = daemon.client().jobs(codec="av1", label=("show", "bunny"), status="pending")
    assert list(fitting) == [wanted]


def test_wait_long_polls_until_the_job_has_ended(daemon: FakeDaemon) -> None:
    job = daemon.add()
    assert daemon.client().wait(job.job_id).status is JobStatus.COMPLETED
    assert {request.headers["Prefer"] for request in daemon.requests} == {"wait=30"}


def test_wait_gives_up_when_its_time_is_up(daemon: FakeDaemon) -> None:
    daemon.life = (running(0.5),)
    job = daemon.add()
    with pytest.raises(StillRunning, match="is still assigned after 0 s"):
        daemon.client().wait(job.job_id, timeout_s=0)


def test_cancel_retry_attempts_and_why_concern_the_given_job(daemon: FakeDaemon) -> None:
    job, client = daemon.add(attempt=1), daemon.client()
    assert client.why(job.job_id).summary == "All are busy."
    assert client.attempts(job.job_id)[0].engine_id == "attic-1"
    assert client.cancel(job.job_id).status is JobStatus.CANCELLED
    assert client.retry(job.job_id).status is JobStatus.PENDING
    with pytest.raises(Conflict, match="The job is pending"):
        client.retry(job.job_id)


def test_a_patch_sends_only_what_was_set(daemon: FakeDaemon) -> None:
    job = daemon.add()
    daemon.client().patch(job.job_id, JobPatch(paused=True))
    assert daemon.requests[0].content == b'{"paused":true}'


def test_engines_are_returned_with_their_present_state(daemon: FakeDaemon) -> None:
    daemon.engines = [{"engine_id": "e", "status": "busy", "free_gb": 3.5, "slots": 2, "jobs": []}]
    client = daemon.client()
    assert [(engine.status, engine.free_gb) for engine in client.engines()] == [("busy", 3.5)]
    assert client.drain_engine("e").status == "draining"
    assert client.resume_engine("e").status == "idle"
    assert client.engine("e").slots == 2
    with pytest.raises(NotFound):
        client.engine("f")


def test_is_ready_returns_true_or_false_and_never_raises(daemon: FakeDaemon) -> None:
    client = daemon.client()
    daemon.faults = [DOWN, problem(503, "starting")]
    assert [client.is_ready() for _ in range(3)] == [False, False, True]


def test_every_error_is_a_client_error() -> None:
    for kind in (DaemonUnreachable, Refused, UnexpectedReply, StillRunning):
        assert issubclass(kind, ClientError)


def test_delays_double_and_are_spread_by_the_jitter() -> None:
    policy = RetryPolicy(retries=3, first_delay_s=1.0, jitter=lambda: 0.5)
    assert list(policy.delays_s()) == [0.5, 1.0, 2.0]
    assert all(0.15 <= delay <= 1.0 for delay in RetryPolicy().delays_s())


def test_an_empty_id_is_refused_before_anything_is_sent(daemon: FakeDaemon) -> None:
    with pytest.raises(BadInput):
        daemon.client().cancel("")
    assert daemon.requests == []


def test_a_key_beyond_ascii_is_sent_as_utf8() -> None:
    seen: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(dict(request.headers.raw)[b"X-API-Key"])
        return httpx.Response(200, content=b"[]")

    with Client("http://d", "clé", transport=httpx.MockTransport(answer)) as client:
        client.engines()
    assert [same_key(value.decode("latin-1"), "clé") for value in seen] == [True]
