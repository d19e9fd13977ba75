"""Test request smuggling and other bad HTTP."""

import json

import pytest
from tests.edge.kit import Journal, Site, get, open_site, small_app

from distconvd.edge.limits import EdgeLimits

POST = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
BAD = {
    "length and transfer coding": POST
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": POST + b"Content-Length: 3, 4\r\n\r\nabcd",
    "negative length": POST + b"Content-Length: -1\r\n\r\n",
    "signed length": POST + b"Content-Length: +3\r\n\r\nabc",
    "hexadecimal length": POST + b"Content-Length: 0x3\r\n\r\nabc",
    "absurd length": POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "empty length": POST + b"Content-Length: \r\n\r\n",
    "space before colon": POST + b"Content-Length : 3\r\n\r\nabc",
    "transfer coding in 1.0": b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size not hexadecimal": POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n",
    "chunk size negative": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n",
    "chunk size absurd": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 30 + b"\r\n",
    "chunk longer than said": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    "chunk size ended by a bare LF": POST + b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no version": b"GET /\r\nHost: x\r\n\r\n",
    "lower-case version": b"GET / http/1.1\r\nHost: x\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
    "bare CR in a header": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
    "folded first header": b"GET / HTTP/1.1\r\n folded: x\r\nHost: x\r\n\r\n",
    "no header name": b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n",
    "method not a token": b"G(ET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "target not ASCII": "GET /é HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "a TLS hello": bytes.fromhex("16030100c8010000c40303") + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("bytewise", [False, True])
async def test_bad_http_is_one_400_problem_and_a_close(
    site: Site, journal: Journal, name: str, bytewise: bool
) -> None:
    data = BAD[name]
    smuggled = get("/jobs/smuggled")
    sent = [data[i : i + 1] for i in range(len(data))] if bytewise else [data + smuggled]
    (reply,) = await site.ask(*sent)
    assert reply.status == 400
    assert reply.headers["connection"] == "close"
    assert json.loads(reply.body)["title"] == "Bad Request"
    assert journal.requests == []


async def test_the_same_length_twice_is_one_length(site: Site) -> None:
    data = POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"
    assert [reply.body for reply in await site.ask(data)] == [b"abc"]


async def test_a_folded_header_is_read_as_one_line(site: Site, journal: Journal) -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: a\r\n  b\r\n\r\n"
    assert (await site.ask(data))[0].status == 200
    assert journal.requests[0].headers["x-long"] == "a b"


async def test_a_folded_transfer_coding_does_not_evade_the_check(site: Site) -> None:
    data = POST + b"Content-Length: 3\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"
    assert [reply.status for reply in await site.ask(data)] == [400]


async def test_a_head_with_bare_line_feeds_is_read_as_rfc_9112_allows(site: Site) -> None:
    assert [r.status for r in await site.ask(b"GET / HTTP/1.1\nHost: x\n\n")] == [200]


async def test_another_transfer_coding_is_501(site: Site) -> None:
    (reply,) = await site.ask(POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
    assert reply.status == 501


@pytest.mark.parametrize("version", ["2.0", "0.9", "3.1"])
async def test_another_version_is_505(site: Site, version: str) -> None:
    (reply,) = await site.ask(get("/", version=version))
    assert (reply.status, reply.headers["connection"]) == (505, "close")


async def test_connect_is_rejected(site: Site) -> None:
    (reply,) = await site.ask(b"CONNECT evil:443 HTTP/1.1\r\nHost: evil\r\n\r\n")
    assert reply.status == 400


async def test_an_upgrade_that_no_handler_accepts_is_an_ordinary_request(site: Site) -> None:
    asked = get("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA")
    assert [reply.status for reply in await site.ask(asked + get("/"))] == [200, 200]


@pytest.mark.parametrize("filler", ["target", "value", "headers", "endless line"])
@pytest.mark.parametrize("whole", [False, True])
async def test_a_head_over_the_limit_is_431(journal: Journal, filler: str, whole: bool) -> None:
    data = {
        "target": get("/" + "a" * 1_000),
        "value": get("/", "A: " + "b" * 1_000),
        "headers": get("/", *(f"A{n}: b" for n in range(150))),
        "endless line": b"GET /" + b"a" * 2_000,
    }[filler]
    sent = [data] if whole else [data[i : i + 50] for i in range(0, len(data), 50)]
    async with open_site(small_app(journal), EdgeLimits(head_bytes_max=1_000)) as site:
        (reply,) = await site.ask(*sent)
    assert (reply.status, reply.headers["connection"]) == (431, "close")


async def test_a_head_just_under_the_limit_is_accepted(journal: Journal) -> None:
    padding = 1_000 - len(get("/", "A: "))
    async with open_site(small_app(journal), EdgeLimits(head_bytes_max=1_000)) as site:
        for extra, status in ((0, 200), (1, 431)):
            (reply,) = await site.ask(get("/", "A: " + "b" * (padding + extra)))
            assert reply.status == status


async def test_heads_that_arrive_together_are_measured_one_by_one(journal: Journal) -> None:
    async with open_site(small_app(journal), EdgeLimits(head_bytes_max=1_000)) as site:
        replies = await site.ask(get("/", "A: " + "b" * 900) * 10)
    assert [reply.status for reply in replies] == [200] * 10
