"""Run the list of raw-socket cases on real sockets; docs/edge.md is the same list."""

import os
from collections.abc import AsyncGenerator

import h11
import pytest
import trio
from tests.docs import pages
from tests.edge.kit import Reply, read_replies
from tests.edge.raw_cases import CASES, FIXED, Case, tables
from tests.edge.sockets import PATIENCE_S, Port, open_port

from distconvd.edge.limits import EdgeLimits

PAGE = pages.ROOT / "docs" / "edge.md"
JOB = {"source_url": "file:///a.mov", "target_codec": "h264"}
MOVING = [case.title for case in CASES.values() if not case.silent]
SILENT = [case.title for case in CASES.values() if case.silent]


@pytest.fixture
async def port() -> AsyncGenerator[Port]:
    async with open_port() as opened:
        yield opened


async def said_after(port: Port, case: Case, *pieces: bytes) -> bytes:
    """Send some pieces and return all that the daemon sends until it closes."""
    with trio.fail_after(PATIENCE_S):
        client = await port.connect()
        async with client, trio.open_nursery() as nursery:
            nursery.start_soon(send, client, case, *pieces)
            return b"".join([data async for data in client])


async def send(client: trio.SocketStream, case: Case, *pieces: bytes) -> None:
    try:
        for piece in pieces:
            await client.send_all(piece)
            await trio.lowlevel.checkpoint()
        if case.half:
            await client.send_eof()
    except trio.BrokenResourceError:
        return  # the daemon may have closed already


def bytewise(data: bytes) -> list[bytes]:
    """Cut data into single bytes, or into a few hundred pieces if it is thousands of bytes long."""
    size = max(1, len(data) // 500)
    return [data[at : at + size] for at in range(0, len(data), size)]


def probe(job_id: str) -> bytes:
    """Return a request that would cancel the job if the daemon executed it."""
    lines = [f"DELETE /jobs/{job_id} HTTP/1.1", FIXED.decode() + "Connection: close", "", ""]
    return "\r\n".join(lines).encode()


def methods_of(case: Case) -> list[str]:
    return [case.sent.split(b" ")[0].decode("latin-1")] if case.sent.startswith(b"HEAD") else []


async def talk(port: Port, case: Case, pieces: list[bytes], *, follow: bool) -> None:
    """Run one conversation and check it against the case.

    With `follow` a request to cancel a job comes directly after it. It is executed if, and only if, the
    connection stays open after the case.
    """
    job = (await port.daemon.client.post("/jobs/", JOB)).json()
    before = port.jobs()
    follows = follow or not case.closes
    pieces = [*pieces, probe(job["job_id"])] if follows else pieces
    said = await said_after(port, case, *pieces)
    replies = read_replies(said, [*methods_of(case), *["GET"] * 100])
    received = follows and not case.closes
    assert [reply.status for reply in replies] == [*case.replies, *([200] if received else [])]
    after = (await port.daemon.client.get(f"/jobs/{job['job_id']}")).json()
    assert after["status"] == ("cancelled" if received else "pending")
    if not received and set(case.replies) <= {*range(400, 600)}:
        assert port.jobs() == before
    check_replies(replies, case)


def check_replies(replies: list[Reply], case: Case) -> None:
    """Check the headers that every reply of its status must have."""
    for reply in replies[: len(case.replies)]:
        assert reply.headers["x-request-id"]
        if reply.status >= 400:
            assert reply.headers["content-type"] == "application/problem+json"
        assert ("allow" in reply.headers) == (reply.status in (204, 405))
    if case.closes and case.replies and not (case.half or case.silent):
        assert replies[-1].headers["connection"] == "close"


@pytest.mark.slow
@pytest.mark.parametrize("title", MOVING)
async def test_a_case_is_answered_as_listed_whole_byte_by_byte_and_with_a_request_behind_it(
    port: Port, title: str
) -> None:
    case = CASES[title]
    await talk(port, case, [case.sent], follow=False)
    await talk(port, case, bytewise(case.sent), follow=False)
    if not (case.half or case.alone):
        await talk(port, case, [case.sent], follow=True)


async def test_a_request_appended_to_a_bad_one_in_the_same_write_is_never_executed(
    port: Port,
) -> None:
    """As in the test above, but in one write, so that the daemon has both in one buffer."""
    for case in CASES.values():
        if case.closes and not (case.half or case.silent or case.alone):
            job = (await port.daemon.client.post("/jobs/", JOB)).json()
            said = await said_after(port, case, case.sent + probe(job["job_id"]))
            assert [reply.status for reply in read_replies(said)] == list(case.replies), case.title
            after = (await port.daemon.client.get(f"/jobs/{job['job_id']}")).json()
            assert after["status"] == "pending", case.title


@pytest.mark.slow
async def test_silent_clients_get_the_listed_replies() -> None:
    limits = EdgeLimits(head_timeout_s=1, body_timeout_s=1, idle_timeout_s=1, linger_s=0.2)

    async def wait(case: Case) -> None:
        said[case.title] = await said_after(port, case, case.sent)

    said: dict[str, bytes] = {}
    async with open_port(limits) as port:
        async with trio.open_nursery() as nursery:
            for title in SILENT:
                nursery.start_soon(wait, CASES[title])
        assert port.jobs() == {}
    for title in SILENT:
        replies = read_replies(said[title])
        assert [reply.status for reply in replies] == list(CASES[title].replies), title
        check_replies(replies, CASES[title])


def test_docs_edge_md_lists_exactly_the_cases_that_are_run() -> None:
    text = PAGE.read_text(encoding="utf-8")
    begin = text.index("### Lengths and codings")
    if os.environ.get("DISTCONV_UPDATE_DOCS"):
        PAGE.write_text(text[:begin] + tables(), encoding="utf-8")
        text = PAGE.read_text(encoding="utf-8")
    assert text[begin:] == tables(), (
        "run DISTCONV_UPDATE_DOCS=1 pytest tests/edge/test_raw_cases.py to write it again"
    )


def test_the_reply_parser_rejects_an_incomplete_reply() -> None:
    with pytest.raises((AssertionError, h11.RemoteProtocolError)):
        read_replies(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")
