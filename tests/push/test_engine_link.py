"""Test the engine's end with an in-memory daemon: what uses the socket, and what HTTP."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
from tests.api.kit import Farm
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import wrap_client_stream

from distconv_engine.attempts.active import ActiveAttempts
from distconv_engine.daemon_link.http import DaemonUnavailable, Rejected
from distconv_engine.daemon_link.socket import Closed, EngineSocket, NotSupported, WebSocket
from distconv_engine.daemon_link.websocket import ACK_S, RETRY_UPGRADE_S, PushLink
from distconv_engine.logs import Log
from distconvd.model import Job, Verdict
from distconvd.model.push import CLOSE_RESTART, SUBPROTOCOL
from distconvd.testing.daemon import KEY, Daemon

Poll = Callable[[], Any]


class Plug:
    """Opens the sockets of engine e1, like `open_socket` on a network; `refuse` makes it fail."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.refuse: Exception | None = None
        self.tries_at_s: list[float] = []
        self.streams: list[trio.abc.Stream] = []

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[EngineSocket]:
        self.tries_at_s.append(trio.current_time())
        if self.refuse is not None:
            raise self.refuse
        stream = await self._daemon.connect()
        self.streams.append(stream)
        async with trio.open_nursery() as nursery:
            socket = await wrap_client_stream(
                nursery,
                stream,  # type: ignore[arg-type] # any stream will do
                "daemon",
                "/engines/e1/ws",
                subprotocols=[SUBPROTOCOL],
                extra_headers=[(b"X-API-Key", KEY.encode())],
            )
            yield WebSocket(socket)
            nursery.cancel_scope.cancel()

    async def pull(self) -> None:
        """Break the connection."""
        await trio.aclose_forcefully(self.streams[-1])
        await wait_all_tasks_blocked()


@pytest.fixture
async def plug(daemon: Daemon) -> AsyncGenerator[Plug]:
    plug = Plug(daemon)
    yield plug
    for stream in plug.streams:
        await trio.aclose_forcefully(stream)


@pytest.fixture
async def link(plug: Plug, farm: Farm, nursery: trio.Nursery) -> PushLink:
    """An open link of an engine that has registered."""
    await farm.beat(slots=2)
    link = PushLink(plug.open, ActiveAttempts(), Log())
    nursery.start_soon(link.run)
    await wait_all_tasks_blocked()
    return link


async def never() -> Job | None:
    raise AssertionError("asked for work by HTTP")


def beat(**fields: Any) -> bytes:
    return msgspec.json.encode({"engine_id": "e1", **fields})


async def test_a_submitted_job_arrives_without_a_poll(link: PushLink, farm: Farm) -> None:
    submitted = await farm.submit()
    job = await link.next_job(never)
    assert job is not None
    assert (job.job_id, job.attempt) == (submitted["job_id"], 1)


async def test_messages_are_answered_over_the_socket(link: PushLink, farm: Farm) -> None:
    answer = await link.maybe_ask("heartbeat", None, beat(slots=3))
    assert answer is not None
    assert msgspec.json.decode(answer)["message"] == "Heartbeat received from engine e1"
    assert (await farm.client.get("/engines/e1")).json()["slots"] == 3


async def test_each_ack_reaches_the_call_that_waits_for_it(
    link: PushLink, nursery: trio.Nursery
) -> None:
    answers: dict[int, bytes | None] = {}

    async def ask(number: int) -> None:
        jobs = [{"job_id": f"{number}_0", "attempt": 1}]
        answers[number] = await link.maybe_ask("heartbeat", None, beat(jobs=jobs))

    async with trio.open_nursery() as asking:
        for number in range(20):
            asking.start_soon(ask, number)
    assert all(f'"{n}_0"'.encode() in (answer or b"") for n, answer in answers.items())


async def test_a_rejection_is_final_and_a_daemon_error_is_not(
    link: PushLink, farm: Farm, daemon: Daemon
) -> None:
    job = await farm.submit()
    body = b'{"output_url": "http://example.com/o", "attempt": 9}'
    with pytest.raises(Rejected, match="Attempt 9 was never assigned") as refused:
        await link.maybe_ask("completed", job["job_id"], body)
    assert refused.value.status == 409
    daemon.store.fail_next(OSError("full"), 1)  # type: ignore[attr-defined]
    body = b'{"output_url": "http://example.com/o", "attempt": 1}'
    with pytest.raises(DaemonUnavailable):
        await link.maybe_ask("completed", job["job_id"], body)


class RecordingAttempts(ActiveAttempts):
    """Active attempts that record what is applied to them."""

    def __init__(self) -> None:
        super().__init__()
        self.verdicts: list[Verdict] = []

    def apply(self, verdicts: list[Verdict]) -> None:
        self.verdicts += verdicts
        super().apply(verdicts)


async def test_a_cancel_stops_active_attempts_and_forgets_those_not_begun(
    plug: Plug, farm: Farm, nursery: trio.Nursery
) -> None:
    await farm.beat(slots=2)
    active_attempts = RecordingAttempts()
    link = PushLink(plug.open, active_attempts, Log())
    nursery.start_soon(link.run)
    jobs = [(await farm.submit())["job_id"] for _ in range(2)]
    assert await link.next_job(never) is not None
    for job_id in jobs:
        await farm.client.delete(f"/jobs/{job_id}")
    await wait_all_tasks_blocked()
    assert active_attempts.verdicts == [Verdict(job_id, 1, "cancel") for job_id in jobs]
    assert link.take_waiting() == []


async def test_a_pause_applies_to_active_attempts_and_to_those_not_begun(
    plug: Plug, farm: Farm, nursery: trio.Nursery
) -> None:
    await farm.beat(slots=2)
    active_attempts = RecordingAttempts()
    link = PushLink(plug.open, active_attempts, Log())
    nursery.start_soon(link.run)
    first, second = [(await farm.submit())["job_id"] for _ in range(2)]
    assert await link.next_job(never) is not None
    for job_id in (first, second):
        await farm.client.patch(f"/jobs/{job_id}", {"paused": True})
    await wait_all_tasks_blocked()
    assert active_attempts.verdicts == [
        Verdict(job, 1, "keep", paused=True) for job in (first, second)
    ]
    waiting = await link.next_job(never)
    assert waiting is not None
    assert (waiting.job_id, waiting.paused) == (second, True)


async def test_a_request_for_a_benchmark_comes_over_the_socket(
    plug: Plug, farm: Farm, nursery: trio.Nursery
) -> None:
    await farm.beat()
    asked: list[int] = []
    nursery.start_soon(PushLink(plug.open, ActiveAttempts(), Log(), asked.append).run)
    await wait_all_tasks_blocked()
    reply = await farm.client.post("/engines/e1/benchmark")
    await wait_all_tasks_blocked()
    assert asked == [reply.json()["benchmark_requested_at"]]


async def test_without_a_socket_everything_goes_by_http(plug: Plug, daemon: Daemon) -> None:
    link = PushLink(plug.open, ActiveAttempts(), Log())
    assert await link.maybe_ask("heartbeat", None, beat()) is None
    job = Job("1_1", "http://example.com/a", "h264")

    async def poll() -> Job | None:
        return job

    assert await link.next_job(poll) is job


async def test_a_poll_is_cancelled_when_a_job_is_pushed_meanwhile(
    plug: Plug, farm: Farm, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    await farm.beat()
    link = PushLink(plug.open, ActiveAttempts(), Log())
    found: list[Job | None] = []

    async def ask() -> None:
        found.append(await link.next_job(trio.sleep_forever))

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    nursery.start_soon(link.run)
    submitted = await farm.submit()
    await wait_all_tasks_blocked()
    assert [job and job.job_id for job in found] == [submitted["job_id"]]


@pytest.mark.parametrize("error", [DaemonUnavailable("gone"), Rejected(404, "who?")])
async def test_a_poll_that_fails_fails_as_without_a_link(
    error: Exception, plug: Plug, daemon: Daemon
) -> None:
    async def poll() -> Job | None:
        raise error

    with pytest.raises(type(error)):
        await PushLink(plug.open, ActiveAttempts(), Log()).next_job(poll)


async def test_waiting_for_pushed_work_ends_with_the_socket_so_that_a_poll_begins(
    link: PushLink, plug: Plug, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    found: list[Job | None] = []

    async def ask() -> None:
        found.append(await link.next_job(never))

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    plug.refuse = Closed("the daemon is away")
    await plug.pull()
    assert found == [None]
    assert not link.is_open


async def test_a_call_in_flight_when_the_socket_breaks_goes_by_http(
    link: PushLink, plug: Plug, daemon: Daemon, nursery: trio.Nursery
) -> None:
    store: Any = daemon.store
    store.block_commits()
    answers: list[bytes | None] = []

    async def ask() -> None:
        answers.append(await link.maybe_ask("heartbeat", None, beat(slots=7)))

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    assert answers == []
    await plug.pull()
    assert answers == [None]
    store.release()


async def test_a_call_without_an_answer_goes_by_http_and_the_socket_is_closed(
    link: PushLink, plug: Plug, daemon: Daemon, autojump_clock: MockClock
) -> None:
    store: Any = daemon.store
    store.block_commits()
    began_s = trio.current_time()
    assert await link.maybe_ask("heartbeat", None, beat(slots=7)) is None
    assert trio.current_time() - began_s == pytest.approx(ACK_S)
    store.release()


async def test_a_lost_socket_is_opened_again_with_backoff(
    link: PushLink, plug: Plug, farm: Farm, autojump_clock: MockClock
) -> None:
    plug.refuse = Closed("the daemon is away")
    await plug.pull()
    await trio.sleep(300)
    pauses = [b - a for a, b in zip(plug.tries_at_s[1:], plug.tries_at_s[2:], strict=False)]
    assert pauses[0] <= 2
    assert 10 <= pauses[-1] <= 31
    plug.refuse = None
    await trio.sleep(31)
    assert link.is_open
    await farm.beat(slots=2)
    await farm.submit()
    assert await link.next_job(never) is not None


async def test_a_daemon_without_websockets_is_retried_only_rarely(
    plug: Plug, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    plug.refuse = NotSupported("the daemon answered 404")
    nursery.start_soon(PushLink(plug.open, ActiveAttempts(), Log()).run)
    await trio.sleep(RETRY_UPGRADE_S + 1)
    assert plug.tries_at_s == pytest.approx([0, RETRY_UPGRADE_S])


async def test_the_newer_of_two_engines_with_one_id_reports_it_and_does_not_reconnect(
    farm: Farm, plug: Plug, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    await farm.beat(slots=2)
    received: list[str] = []
    links = [
        PushLink(plug.open, ActiveAttempts(), Log(), on_replaced=partial(received.append, name))
        for name in ("older", "newer")
    ]
    for link in links:
        nursery.start_soon(link.run)
        await trio.sleep(1)
    await trio.sleep(RETRY_UPGRADE_S + 1)
    assert [link.is_open for link in links] == [True, False]
    assert received == ["newer"]
    assert len(plug.tries_at_s) == 2


async def test_a_silent_daemon_is_pinged_and_then_disconnected(
    plug: Plug, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    silent = PushLink(lambda: _silent(plug), ActiveAttempts(), Log())
    nursery.start_soon(silent.run)
    await trio.sleep(1)
    assert silent.is_open
    await trio.sleep(60)
    assert len(plug.tries_at_s) > 1


async def test_a_daemon_that_closes_for_a_restart_is_retried_soon(
    link: PushLink, plug: Plug, daemon: Daemon, autojump_clock: MockClock
) -> None:
    daemon.parts.push.sessions["e1"].close(CLOSE_RESTART, "the daemon is stopping")
    await trio.sleep(5)
    assert link.is_open
    assert len(plug.tries_at_s) == 2


async def test_an_unknown_message_is_ignored(link: PushLink, daemon: Daemon, farm: Farm) -> None:
    session = daemon.parts.push.sessions["e1"]
    session._queue.append('{"type": "song"}')
    session._queue.append('{"type": "assigned", "job": 7}')
    await farm.submit()
    assert await link.next_job(never) is not None


class _Silent:
    """A socket whose other end has gone without a close."""

    async def receive(self) -> str:
        await trio.sleep_forever()
        raise AssertionError

    async def send(self, text: str) -> None:
        await trio.lowlevel.checkpoint()

    async def ping(self) -> None:
        await trio.sleep_forever()


@asynccontextmanager
async def _silent(plug: Plug) -> AsyncGenerator[EngineSocket]:
    plug.tries_at_s.append(trio.current_time())
    yield _Silent()
