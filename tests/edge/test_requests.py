"""Test how requests are read: whole, byte by byte, pipelined."""

import json
import re

import pytest
import trio
from tests.edge.kit import KEY, Journal, Site, get, open_site, post, read_replies, small_app
from trio.testing import MockClock, lockstep_stream_pair

from distconvd.edge.limits import EdgeLimits

SHAPES = {
    "get": (get("/"), "GET", 200),
    "post": (post("/echo", b'{"a":1}', "Content-Type: application/json"), "POST", 200),
    "chunked": (
        get("/echo", "Transfer-Encoding: chunked", method="POST")
        + b"3;ext=1\r\nabc\r\n1\r\nd\r\n0\r\nTrailer: x\r\n\r\n",
        "POST",
        200,
    ),
    "head": (get("/", method="HEAD"), "HEAD", 200),
    "unknown": (get("/nope"), "GET", 404),
    "old": (get("/", version="1.0"), "GET", 200),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03\r\n\r\n", "GET", 400),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_request_gets_the_same_reply_whole_and_byte_by_byte(site: Site, shape: str) -> None:
    data, method, status = SHAPES[shape]
    whole = await site.ask(data, methods=[method])
    bytewise = await site.ask(*(data[i : i + 1] for i in range(len(data))), methods=[method])
    assert [reply.status for reply in whole] == [status]
    assert _plain(whole[0].body) == _plain(bytewise[0].body)
    assert whole[0].headers.keys() == bytewise[0].headers.keys()


def _plain(body: bytes) -> bytes:
    return re.sub(rb'"request_id": "[^"]*"', b"", body)


async def test_a_repeated_idempotency_key_header_is_rejected(site: Site) -> None:
    twice = ("Idempotency-Key: a", "idempotency-key: b", "Content-Type: application/json")
    (reply,) = await site.ask(post("/echo", b"{}", *twice))
    assert reply.status == 400
    assert json.loads(reply.body)["field"] == "idempotency-key"


async def test_pipelined_requests_are_answered_in_order(site: Site) -> None:
    replies = await site.ask(b"".join(post("/echo", b"%d" % n) for n in range(20)))
    assert [reply.body for reply in replies] == [b"%d" % n for n in range(20)]


async def test_at_most_one_read_of_what_a_client_sends_ahead_is_buffered(
    autojump_clock: MockClock, site: Site, journal: Journal
) -> None:
    client = site.connect(lockstep_stream_pair)
    await client.send_all(get("/wait"))
    await journal.begun.wait()
    taken = 0
    with trio.move_on_after(4):  # the handler takes five seconds
        while True:
            await client.send_all(get("/") * 100)
            taken += 1
    assert taken == 0


async def test_garbage_after_a_good_request_is_rejected_after_its_reply(site: Site) -> None:
    replies = await site.ask(get("/") + b"\x00\x01garbage\r\n\r\n")
    assert [reply.status for reply in replies] == [200, 400]
    assert replies[1].headers["connection"] == "close"


async def test_a_client_that_half_closes_after_its_request_gets_its_reply(site: Site) -> None:
    assert [reply.status for reply in await site.ask(get("/"))] == [200]


async def test_a_handler_sees_the_request_decoded(site: Site, journal: Journal) -> None:
    await site.ask(get("/api/v1/jobs/a%20b/?x=1&y=", "X-A: 1", "x-a: 2", "X-Text: caf\xe9"))
    (request,) = journal.requests
    assert (request.method, request.path) == ("GET", "/jobs/a b")
    assert request.params == {"id": "a b"}
    assert request.query == {"x": "1", "y": ""}
    assert request.headers["x-a"] == "1, 2"
    assert request.headers["x-text"] == "caf\xe9"
    assert request.peer == "client:1"


async def test_the_absolute_form_of_a_target_is_accepted(site: Site) -> None:
    assert (await site.ask(get("http://x/missing")))[0].status == 404
    assert (await site.ask(get("http://x")))[0].status == 200


async def test_a_key_is_asked_for_before_the_body_is_read(site: Site) -> None:
    client = site.connect()
    await client.send_all(get("/locked", "Content-Length: 999999", method="POST"))
    head = await client.receive_some()
    assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"Connection: close" in head
    await client.aclose()


async def test_a_good_key_admits_the_request_and_identifies_the_caller(
    site: Site, journal: Journal
) -> None:
    assert (await site.ask(get("/locked", KEY)))[0].status == 200
    principal = journal.requests[0].principal
    assert principal is not None
    assert principal.name == "tester"


async def test_an_unknown_path_needs_no_key(site: Site) -> None:
    assert (await site.ask(get("/nope")))[0].status == 404


async def test_options_lists_the_methods_of_a_path(site: Site) -> None:
    (reply,) = await site.ask(get("/locked", method="OPTIONS"), methods=["OPTIONS"])
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert "content-length" not in reply.headers


async def test_options_of_the_whole_server_lists_its_methods(site: Site) -> None:
    (reply,) = await site.ask(get("*", method="OPTIONS"), methods=["OPTIONS"])
    assert "DELETE" in reply.headers["allow"]


async def test_a_wrong_method_is_405_with_allow(site: Site) -> None:
    (reply,) = await site.ask(get("/echo", method="DELETE"))
    assert reply.status == 405
    assert reply.headers["allow"] == "OPTIONS, POST"


async def test_a_well_formed_request_id_is_kept_and_returned(site: Site) -> None:
    (reply,) = await site.ask(get("/nope", "X-Request-Id: ticket-42/a"))
    assert reply.headers["x-request-id"] == "ticket-42/a"
    assert json.loads(reply.body)["request_id"] == "ticket-42/a"


@pytest.mark.parametrize("theirs", ["", "a b", "x" * 129, "caf\xe9", "a\x1b[31m"])
async def test_a_malformed_request_id_is_replaced(site: Site, theirs: str) -> None:
    (reply,) = await site.ask(get("/nope", f"X-Request-Id: {theirs}"))
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", reply.headers["x-request-id"])


async def test_a_connection_is_closed_after_its_maximum_of_requests(journal: Journal) -> None:
    limits = EdgeLimits(requests_per_connection_max=3)
    async with open_site(small_app(journal), limits) as site:
        replies = read_replies(await site.talk(get("/") * 5))
    assert [reply.headers.get("connection") for reply in replies] == [None, None, "close"]
