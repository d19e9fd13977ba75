"""Check that no kind of abuse leaks descriptors, tasks or memory, or changes a job.

A crowd of concurrent connections on real sockets repeats each kind several times. What the first
round leaves is created once and kept (metrics, caches); what every further round leaves is a leak. One
leaked object per connection would show.
"""

import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trustme
from tests.edge.raw_cases import CHUNKED, FIXED, JOB, LENGTH, chunks, get, post
from tests.edge.sockets import (
    PATIENCE_S,
    OpenConnections,
    Port,
    open_port,
    reset,
    send_until_refused,
    take_all,
)
from tests.push.kit import HANDSHAKE

from distconvd.edge.limits import EdgeLimits
from distconvd.edge.tls import TlsFiles

pytestmark = [pytest.mark.slow, pytest.mark.alone]

Abuse = Callable[[Port, int], Awaitable[None]]
CROWD = 40
TIMES = 3
SHORT = EdgeLimits(
    head_timeout_s=0.2, body_timeout_s=0.2, idle_timeout_s=0.2, send_timeout_s=0.2, linger_s=0.2
)
REQUESTS = {"with a length": post(LENGTH, body=JOB), "in chunks": post(CHUNKED, body=chunks(JOB))}
WAITING = [
    get(b"/jobs/{id}", b"Prefer: wait=60\r\n"),
    get(b"/events"),
    b"GET /engines/e%d/ws HTTP/1.1\r\n"
    + "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE.items()).encode()
    + b"\r\n",
]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Set the log level, whatever the run asks for: pytest keeps log records, which would count."""
    caplog.set_level(logging.WARNING, logger="distconvd")


async def _open_and_close(port: Port, _number: int) -> None:
    async with await port.connect():
        return


async def _open_and_reset(port: Port, _number: int) -> None:
    await reset(await port.connect())


async def _half_close(port: Port, number: int) -> None:
    async with await port.connect() as client:
        await client.send_all(post(LENGTH, body=JOB)[:number])
        await client.send_eof()
        await take_all(client)


async def _noise(port: Port, number: int) -> None:
    async with await port.connect() as client:
        await client.send_all(
            bytes((number * 7 + at * 13) % 256 for at in range(200)) + b"\r\n\r\n"
        )
        await client.send_eof()
        await take_all(client)


async def _flood_of_head(port: Port, _number: int) -> None:
    async with await port.connect() as client:
        await client.send_all(b"GET /livez HTTP/1.1\r\n")
        await send_until_refused(client, b"A: " + b"b" * 8_000 + b"\r\n", 20)
        await take_all(client)


async def _flood_of_body(port: Port, _number: int) -> None:
    async with await port.connect() as client:
        await client.send_all(post(CHUNKED))
        await send_until_refused(client, b"10000\r\n" + b"a" * 65_536 + b"\r\n", 24)
        await take_all(client)


async def _flood_of_requests(port: Port, _number: int) -> None:
    client = await port.connect()
    await send_until_refused(client, get() * 20, 10)
    await reset(client)


async def _expect_and_leave(port: Port, _number: int) -> None:
    client = await port.connect()
    await client.send_all(post(LENGTH, b"Expect: 100-continue\r\n"))
    await client.receive_some()
    await reset(client)


async def _wait_and_leave(port: Port, number: int) -> None:
    """Abandon a long poll, an event stream or a websocket."""
    asked = WAITING[number % len(WAITING)].replace(b"{id}", next(iter(port.jobs())).encode())
    client = await port.connect()
    await client.send_all(asked.replace(b"%d", b"%d" % number))
    if number % 2:
        await client.receive_some() if b"Prefer" not in asked else await trio.sleep(0.01)
    await (reset(client) if number % 4 < 2 else client.aclose())


async def _stop_in_a_head(port: Port, _number: int) -> None:
    async with await port.connect() as client:
        await client.send_all(b"GET /livez HTTP/1.1\r\nA:")
        assert b" 408 " in await take_all(client)


async def _stop_in_a_body(port: Port, _number: int) -> None:
    async with await port.connect() as client:
        await client.send_all(post(LENGTH, body=JOB[:5]))
        assert b" 408 " in await take_all(client)


async def _never_read(port: Port, _number: int) -> None:
    """Ask for megabytes and read none of it, until the daemon closes the connection."""
    async with await port.connect() as client:
        await client.send_all(get(b"/openapi.json") * 60)
        await port.wait_until_left()


async def _wrong_key(port: Port, number: int) -> None:
    async with await port.connect() as client:
        await client.send_all(get(b"/jobs/").replace(b"test-key", b"guess %d" % number))
        await client.send_eof()
        assert b" 401 " in (said := await take_all(client)) or b" 429 " in said


KINDS: dict[str, tuple[Abuse, int]] = {
    "opened and closed": (_open_and_close, CROWD),
    "opened and reset": (_open_and_reset, CROWD),
    "half closed at every byte": (_half_close, len(post(LENGTH, body=JOB)) - 1),
    "noise": (_noise, CROWD),
    "a flood of headers": (_flood_of_head, CROWD),
    "a flood of body": (_flood_of_body, 20),
    "a flood of requests": (_flood_of_requests, CROWD),
    "100-continue and gone": (_expect_and_leave, CROWD),
    "gone while it waits": (_wait_and_leave, CROWD),
    "stopped in a head": (_stop_in_a_head, CROWD),
    "stopped in a body": (_stop_in_a_body, CROWD),
    "never reads": (_never_read, 10),
    "wrong keys": (_wrong_key, CROWD),
}


def limits_for(abuse: Abuse) -> EdgeLimits:
    """Return short timeouts for abuse that ends by them, else those that suit a busy machine."""
    waits = (_stop_in_a_head, _stop_in_a_body, _never_read, _hello_and_silence)
    return SHORT if abuse in waits else EdgeLimits()


async def crowd(port: Port, abuse: Abuse, numbers: Sequence[int]) -> OpenConnections:
    """Abuse the daemon from many concurrent connections; return what is open once all have gone."""
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            for number in numbers:
                nursery.start_soon(abuse, port, number)
    await port.wait_until_left()
    return OpenConnections.now()


async def assert_nothing_is_left(port: Port, abuse: Abuse, number: int) -> None:
    jobs = port.jobs()
    counts = [await crowd(port, abuse, range(number)) for _ in range(TIMES)]
    assert {h.descriptors for h in counts[1:]} == {counts[1].descriptors}
    assert {h.tasks for h in counts[1:]} == {counts[1].tasks}
    growths = [later.blocks - before.blocks for before, later in pairwise(counts)]
    # The minimum: a leak recurs in every round, other allocations do not.
    assert min(growths) < number, growths
    assert port.jobs() == jobs


@pytest.mark.parametrize("kind", KINDS)
async def test_no_kind_of_abuse_leaks_descriptors_tasks_memory_or_changed_jobs(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    abuse, number = KINDS[kind]
    async with open_port(limits_for(abuse)) as port:
        await port.daemon.client.post("/jobs/", JOB)
        await assert_nothing_is_left(port, abuse, number)
        assert (await port.daemon.client.get("/livez")).status == 200
    surprises = {r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING}
    assert surprises <= {"a request with a wrong key was refused"}


@pytest.mark.parametrize(
    "name, how", [("with a length", "closed"), ("with a length", "reset"), ("in chunks", "reset")]
)
async def test_a_submission_cut_off_at_any_byte_creates_no_job(
    name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = REQUESTS[name]

    async def leave(port: Port, cut: int) -> None:
        client = await port.connect()
        await client.send_all(data[:cut])
        await (client.aclose() if how == "closed" else reset(client))

    async with open_port() as port:
        await assert_nothing_is_left(port, leave, len(data))
        assert port.jobs() == {}
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_a_daemon_s_client_may_disconnect_after_any_byte_of_a_reply(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = get(b"/jobs/")

    async def leave(port: Port, cut: int) -> None:
        client = await port.connect()
        await client.send_all(asked)
        taken = 0
        while taken < cut and (data := await client.receive_some(cut - taken)):
            taken += len(data)
        await reset(client)

    async with open_port() as port:
        async with await port.connect() as client:
            await client.send_all(asked.replace(FIXED, FIXED + b"Connection: close\r\n"))
            size = len(await take_all(client)) - len("Connection: close\r\n")
        await assert_nothing_is_left(port, leave, size)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_a_submission_whose_reply_nobody_reads_creates_one_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = post(LENGTH, b"Idempotency-Key: mine\r\n", body=JOB)

    async def ask_and_leave(port: Port, cut: int) -> None:
        client = await port.connect()
        await client.send_all(asked)
        await client.receive_some(cut + 1)
        await reset(client)

    async with open_port() as port:
        await crowd(port, ask_and_leave, range(CROWD))
        assert len(port.jobs()) == 1
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_clients_over_the_connection_limit_leak_nothing() -> None:
    async def ask(port: Port, _number: int) -> None:
        async with await port.connect() as client:
            await send_until_refused(client, get(b"/livez"), 1)
            await take_all(client)

    async with open_port(EdgeLimits(connections_max=5, idle_timeout_s=0.2)) as port:
        await assert_nothing_is_left(port, ask, CROWD)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a PEM file with a certificate for loopback and its key."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    made = trustme.CA().issue_cert("127.0.0.1")
    made.private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


ANYBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANYBODY.check_hostname, ANYBODY.verify_mode = False, ssl.CERT_NONE


async def _shake_and_reset(port: Port, number: int) -> None:
    """Reset in the middle of a handshake, after it, or after a request."""
    inner = await port.connect()
    outer = trio.SSLStream(inner, ANYBODY, https_compatible=True)
    if number % 3:
        await outer.do_handshake()
    if number % 3 == 2:
        await outer.send_all(get())
    await reset(inner)


async def _hello_and_silence(port: Port, _number: int) -> None:
    async with await port.connect() as client:
        await client.send_all(bytes.fromhex("16030100c8010000c40303"))
        assert await take_all(client) == b""


async def _no_tls(port: Port, _number: int) -> None:
    async with await port.connect() as client:
        await send_until_refused(client, get(), 1)
        await take_all(client)


@pytest.mark.parametrize("abuse", [_shake_and_reset, _hello_and_silence, _no_tls])
async def test_an_aborted_tls_handshake_leaks_nothing(
    abuse: Abuse, certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_port(limits_for(abuse), tls=TlsFiles(certificate)) as port:
        await assert_nothing_is_left(port, abuse, CROWD)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.slow
async def test_ten_thousand_abandoned_connections_leak_nothing() -> None:
    begun = [b"", b"G", b"GET / HT", get()[:-1], post(LENGTH, body=JOB[:9]), b"\x16\x03\x01"]

    async def leave(port: Port, number: int) -> None:
        client = await port.connect()
        await client.send_all(begun[number % len(begun)])
        # Mostly resets, which leave no TIME_WAIT behind: a machine has only so many of these.
        await (client.aclose() if number % 10 == 0 else reset(client))

    async with open_port() as port:
        before = after = await crowd(port, leave, range(500))
        for _ in range(19):
            after = await crowd(port, leave, range(500))
        assert after.descriptors == before.descriptors
        assert after.tasks == before.tasks
        assert after.blocks - before.blocks < 19 * 500 / 10
        assert port.jobs() == {}
