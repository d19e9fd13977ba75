"""Test replies: HEAD, 204, HTTP/1.0, iterated bodies, and handlers that fail."""

import json
import logging
from collections.abc import AsyncIterator

import pytest
import trio
from tests.edge.kit import Journal, Site, get, open_site, read_all, read_replies, small_app

from distconvd.edge.http import Request, Response, Route
from distconvd.errors import NotFound


async def test_a_reply_has_its_date_length_type_and_request_id(site: Site) -> None:
    (reply,) = await site.ask(get("/"))
    assert reply.headers.keys() == {"date", "content-length", "content-type", "x-request-id"}


async def test_a_small_reply_is_sent_in_one_piece(site: Site) -> None:
    client = site.connect()
    await client.send_all(get("/"))
    assert (await client.receive_some()).endswith(b'\r\n\r\n{"hello":1}')
    await client.aclose()


@pytest.mark.parametrize("path, length", [("/", "11"), ("/stream", None), ("/missing", None)])
async def test_head_has_the_headers_of_get_and_no_body(
    site: Site, path: str, length: str | None
) -> None:
    replies = await site.ask(get(path, method="HEAD") + get(path), methods=["HEAD", "GET"])
    assert replies[0].body == b""
    assert replies[0].headers.keys() == replies[1].headers.keys()
    if length is not None:
        assert replies[0].headers["content-length"] == length


async def test_an_iterated_body_is_chunked_and_the_connection_kept(site: Site) -> None:
    first, second = await site.ask(get("/stream") + get("/"))
    assert first.body == b"piece 0\npiece 1\npiece 2\n"
    assert first.headers["transfer-encoding"] == "chunked"
    assert second.status == 200


async def test_http_1_0_gets_no_chunked_coding_and_a_close(site: Site) -> None:
    (reply,) = await site.ask(get("/stream", version="1.0"))
    assert "transfer-encoding" not in reply.headers
    assert reply.headers["connection"] == "close"
    assert reply.body.endswith(b"piece 2\n")


async def test_http_1_0_gets_one_reply_per_connection(site: Site) -> None:
    (reply,) = await site.ask(get("/", version="1.0") + get("/", version="1.0"))
    assert reply.headers["connection"] == "close"


async def test_connection_close_is_honoured(site: Site) -> None:
    (reply,) = await site.ask(get("/", "Connection: close"), get("/"))
    assert reply.headers["connection"] == "close"


async def test_204_has_neither_body_nor_length_nor_type(site: Site) -> None:
    first, second = await site.ask(get("/nothing") + get("/"))
    assert first.headers.keys() == {"date", "x-request-id"}
    assert second.status == 200


async def test_a_body_with_204_is_not_sent() -> None:
    async def handle(_request: Request) -> Response:
        return Response(204, b"never mind")

    said = await _served(Route("GET", "/x", handle, role="public"), "/x", "/")
    assert [(r.status, r.body[:5]) for r in read_replies(said)] == [(204, b""), (200, b'{"hel')]


async def test_a_problem_is_reported_with_its_field(site: Site) -> None:
    (reply,) = await site.ask(get("/missing"))
    assert reply.headers["content-type"] == "application/problem+json"
    problem = json.loads(reply.body)
    assert problem["field"] == "job_id"
    assert problem["request_id"] == reply.headers["x-request-id"]


async def test_a_crash_is_500_with_one_traceback_and_the_daemon_lives(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await site.ask(get("/crash") + get("/"))
    assert (first.status, second.status) == (500, 200)
    assert b"a bug" not in first.body
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert first.headers["x-request-id"] in record.getMessage()


async def _served(route: Route, *paths: str) -> bytes:
    async with open_site(small_app(Journal(), route)) as site:
        return await site.talk(b"".join(get(path) for path in paths))


async def test_an_error_from_a_handler_s_nursery_is_reported_unwrapped() -> None:
    async def fail() -> None:
        raise NotFound("Job not found")

    async def handle(_request: Request) -> Response:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
        return Response()

    said = await _served(Route("GET", "/x", handle, role="public"), "/x")
    assert read_replies(said)[0].status == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Bad": "a\r\nSet-Cookie: b"},
        {"X-Bad\r\n": "a"},
        {"X-Bad": "snow\N{SNOWMAN}"},
        {"Content-Length": "3"},
        {"transfer-encoding": "chunked"},
        {"Connection": "keep-alive"},
    ],
)
async def test_an_invalid_header_from_a_handler_is_a_500_and_not_sent(
    headers: dict[str, str],
) -> None:
    async def handle(_request: Request) -> Response:
        return Response(200, b"x", headers=headers)

    said = await _served(Route("GET", "/x", handle, role="public"), "/x", "/")
    assert [reply.status for reply in read_replies(said)] == [500, 200]


async def _given(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


async def test_an_iterated_body_of_known_length_has_a_content_length() -> None:
    async def handle(_request: Request) -> Response:
        return Response(200, _given(b"abc", b"", b"de"), content_length=5)

    said = await _served(Route("GET", "/x", handle, role="public"), "/x", "/")
    first, second = read_replies(said)
    assert (first.body, first.headers["content-length"]) == (b"abcde", "5")
    assert second.status == 200


async def test_head_may_announce_a_length_without_producing_the_body() -> None:
    async def handle(_request: Request) -> Response:
        return Response(200, b"", content_length=10**12)

    async with open_site(small_app(Journal(), Route("GET", "/x", handle, role="public"))) as site:
        (reply,) = await site.ask(get("/x", method="HEAD"), methods=["HEAD"])
    assert reply.headers["content-length"] == "1000000000000"


@pytest.mark.parametrize("given", [[b"abc"], [b"abc", b"defg"]])
async def test_a_body_of_another_length_than_announced_is_cut_off_and_never_looks_complete(
    given: list[bytes],
) -> None:
    async def handle(_request: Request) -> Response:
        return Response(200, _given(*given), content_length=5)

    said = await _served(Route("GET", "/x", handle, role="public"), "/x", "/")
    assert b"Content-Length: 5\r\n" in said
    assert len(said.partition(b"\r\n\r\n")[2]) < 5


async def test_a_body_that_fails_midway_is_logged_cut_off_and_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"abc"
        raise RuntimeError("a bug")

    async def handle(_request: Request) -> Response:
        return Response(200, failing())

    said = await _served(Route("GET", "/x", handle, role="public"), "/x", "/")
    assert said.endswith(b"3\r\nabc\r\n")
    assert "a reply could not be sent" in caplog.text


async def test_an_iterator_is_closed_when_its_body_is_not_wanted(
    site: Site, journal: Journal
) -> None:
    async def handle(_request: Request) -> Response:
        body = _counted(journal)
        await anext(body)
        return Response(204, body)

    await _served(Route("GET", "/x", handle, role="public"), "/x")
    assert journal.closed_bodies == 1


async def _counted(journal: Journal) -> AsyncIterator[bytes]:
    try:
        yield b"first"
        yield b"second"
    finally:
        journal.closed_bodies += 1


async def test_a_large_reply_arrives_whole() -> None:
    async def handle(_request: Request) -> Response:
        return Response(200, b"0123456789" * 100_000)

    async with open_site(small_app(Journal(), Route("GET", "/x", handle, role="public"))) as site:
        client = site.connect()
        await client.send_all(get("/x", "Connection: close"))
        (reply,) = read_replies(await read_all(client))
    assert reply.body == b"0123456789" * 100_000
