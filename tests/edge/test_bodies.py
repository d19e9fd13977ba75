"""Test request bodies: limits, types, 100 Continue, and unread bodies."""

import json

import pytest
from tests.edge.kit import (
    Journal,
    Site,
    chunked,
    get,
    open_site,
    post,
    read_all,
    read_replies,
    small_app,
)

from distconvd.edge.limits import EdgeLimits

JSON = "Content-Type: application/json"


async def test_a_body_over_the_limit_is_rejected_before_it_is_sent(site: Site) -> None:
    client = site.connect()
    await client.send_all(get("/echo", "Content-Length: 1048577", method="POST"))
    head = await client.receive_some()
    assert head.startswith(b"HTTP/1.1 413 Content Too Large\r\n")
    await client.aclose()


async def test_a_chunked_body_over_the_limit_is_rejected_while_it_arrives(site: Site) -> None:
    start = get("/echo", "Transfer-Encoding: chunked", method="POST")
    big = b"%x\r\n%b\r\n" % (2_000_000, b"x" * 2_000_000)
    (reply,) = await site.ask(start + big)
    assert (reply.status, reply.headers["connection"]) == (413, "close")


@pytest.mark.parametrize("size, status", [(10, 200), (11, 413)])
async def test_a_route_may_have_a_limit_of_its_own(site: Site, size: int, status: int) -> None:
    assert (await site.ask(post("/small", b"x" * size)))[0].status == status
    start = get("/small", "Transfer-Encoding: chunked", method="POST")
    assert (await site.ask(start + chunked(b"x" * size)))[0].status == status


async def test_a_small_body_over_the_limit_does_not_close_the_connection(site: Site) -> None:
    replies = await site.ask(post("/small", b"x" * 100) + get("/"))
    assert [reply.status for reply in replies] == [413, 200]


async def test_a_streamed_body_has_no_limit_on_its_total_length(site: Site) -> None:
    (reply,) = await site.ask(post("/count", b"x" * 3_000_000, method="PUT"))
    assert reply.body == b"3000000"


async def test_curl_s_default_content_type_is_rejected_with_advice(site: Site) -> None:
    form = "Content-Type: application/x-www-form-urlencoded"
    replies = await site.ask(post("/echo", b"{}", form) + get("/"))
    assert [reply.status for reply in replies] == [415, 200]
    assert "-H 'Content-Type: application/json'" in json.loads(replies[0].body)["detail"]


@pytest.mark.parametrize(
    "headers",
    [(), (JSON,), ("Content-Type: Application/JSON; charset=utf-8",)],
)
async def test_json_may_be_announced_in_any_spelling_or_not_at_all(
    site: Site, headers: tuple[str, ...]
) -> None:
    assert (await site.ask(post("/echo", b"{}", *headers)))[0].status == 200


async def test_the_type_of_an_empty_body_does_not_matter(site: Site) -> None:
    assert (await site.ask(post("/echo", b"", "Content-Type: text/html")))[0].status == 200


async def test_a_route_may_accept_any_content_type(site: Site) -> None:
    assert (await site.ask(post("/count", b"x", "Content-Type: video/mp4", method="PUT")))[
        0
    ].body == b"1"


async def test_100_continue_is_sent_once_the_body_is_wanted(site: Site) -> None:
    client = site.connect()
    await client.send_all(get("/echo", "Content-Length: 3", "Expect: 100-continue", method="POST"))
    assert await client.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send_all(b"abc")
    assert (await client.receive_some()).endswith(b"\r\n\r\nabc")
    await client.aclose()


async def test_100_continue_is_left_out_when_the_body_is_there_already(site: Site) -> None:
    (reply,) = await site.ask(post("/echo", b"abc", "Expect: 100-continue"))
    assert (reply.status, reply.interim) == (200, [])


@pytest.mark.parametrize("path, status", [("/locked", 401), ("/nope", 404), ("/ignore", 200)])
async def test_a_body_that_nobody_wants_is_not_asked_for(
    site: Site, path: str, status: int
) -> None:
    client = site.connect()
    await client.send_all(get(path, "Content-Length: 3", "Expect: 100-continue", method="POST"))
    said = await client.receive_some()
    assert said.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in said
    await client.aclose()


async def test_a_small_unread_body_is_discarded_and_the_connection_kept(site: Site) -> None:
    start, body = get("/ignore", "Content-Length: 1000", method="POST"), b"x" * 1_000
    replies = await site.ask(start, body[:500], body[500:] + get("/"))
    assert [reply.status for reply in replies] == [200, 200]


async def test_an_unread_chunked_body_that_has_arrived_is_discarded(site: Site) -> None:
    start = get("/ignore", "Transfer-Encoding: chunked", method="POST")
    replies = await site.ask(start + chunked(b"x" * 1_000) + get("/"))
    assert [reply.status for reply in replies] == [200, 200]


@pytest.mark.parametrize("framing", ["Content-Length: 999999", "Transfer-Encoding: chunked"])
async def test_a_large_or_endless_unread_body_closes_the_connection(
    site: Site, framing: str
) -> None:
    (reply,) = await site.ask(get("/ignore", framing, method="POST") + b"5\r\nabc")
    assert (reply.status, reply.headers["connection"]) == (200, "close")


async def test_a_client_that_still_sends_receives_the_reply(site: Site) -> None:
    client = site.connect()
    await client.send_all(get("/locked", "Content-Length: 9999999", method="POST"))
    for _ in range(100):
        await client.send_all(b"x" * 65_536)
    await client.send_eof()
    (reply,) = read_replies(await read_all(client))
    assert reply.status == 401


async def test_a_body_in_very_small_chunks_is_rejected(site: Site) -> None:
    start = get("/echo", "Transfer-Encoding: chunked", method="POST")
    (reply,) = await site.ask(start + chunked(*[b"x"] * 2_000))
    assert reply.status == 400


async def test_a_thousand_small_chunks_are_fine(site: Site) -> None:
    start = get("/echo", "Transfer-Encoding: chunked", method="POST")
    assert (await site.ask(start + chunked(*[b"x"] * 999)))[0].status == 200


async def test_broken_framing_of_a_streamed_body_is_400(site: Site) -> None:
    start = get("/count", "Transfer-Encoding: chunked", method="PUT")
    (reply,) = await site.ask(start + b"3\r\nabc\r\nnonsense\r\n")
    assert (reply.status, reply.headers["connection"]) == (400, "close")


async def test_the_configured_body_limit_applies(journal: Journal) -> None:
    async with open_site(small_app(journal), EdgeLimits(body_bytes_max=100)) as site:
        assert (await site.ask(post("/echo", b"x" * 101)))[0].status == 413
