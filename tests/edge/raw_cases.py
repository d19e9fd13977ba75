"""List the raw-socket cases: what is sent, byte for byte, and what a daemon answers.

docs/edge.md is generated from it, and tests/edge/test_raw_cases.py runs it, so the page is correct.
`FIXED` stands for the two header lines that most requests here have, and `JOB` for a body that would
submit a job if anybody read it.
"""

import re
from dataclasses import dataclass

from distconvd.testing.daemon import KEY

FIXED = f"Host: x\r\nX-API-Key: {KEY}\r\n".encode()
JOB = b'{"source_url":"file:///a.mov","target_codec":"h264"}'
LENGTH = b"Content-Length: %d\r\n" % len(JOB)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
JSON = b"Content-Type: application/json\r\n"


@dataclass(frozen=True)
class Case:
    """One conversation.

    `replies` are the final statuses, in order. `closes`: the daemon ends the connection by itself.
    `silent`: the client sends nothing more and waits; `half`: it closes its half; `alone`: whatever
    followed it would be its body. `shown`: what the page shows if the bytes are too many to show.
    """

    title: str
    sent: bytes
    replies: tuple[int, ...]
    closes: bool = False
    silent: bool = False
    half: bool = False
    alone: bool = False
    shown: str = ""


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"POST /jobs/ HTTP/1.1\r\n" + FIXED + b"".join(lines) + b"\r\n" + body


def get(path: bytes = b"/livez", *lines: bytes, method: bytes = b"GET") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\n" + FIXED + b"".join(lines) + b"\r\n"


def chunks(*given: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in (*given, b""))


def bad(title: str, sent: bytes, status: int = 400, shown: str = "") -> Case:
    """Invalid HTTP, or HTTP that two programs might read differently: an error, then the close."""
    return Case(title, sent, (status,), closes=True, shown=shown)


def fine(title: str, sent: bytes, *replies: int, shown: str = "") -> Case:
    """A request that is answered, and after which the connection stays open."""
    return Case(title, sent, replies, shown=shown)


def last(title: str, sent: bytes, *replies: int, shown: str = "") -> Case:
    """A request that is answered, and after which the connection is closed."""
    return Case(title, sent, replies, closes=True, shown=shown)


LENGTHS = [
    fine("a length", post(LENGTH, body=JOB), 200),
    fine("the same length twice", post(LENGTH, LENGTH, body=JOB), 200),
    fine("the same length twice in one line", post(b"Content-Length: %d, %d\r\n" % ((len(JOB),) * 2), body=JOB), 200),
    fine("no length and no coding: no body", post(), 400),
    fine("a body that the route does not read", get(b"/livez", LENGTH) + JOB, 200),
    bad("length and coding", post(LENGTH, CHUNKED, body=chunks(JOB))),
    bad("coding and length", post(CHUNKED, LENGTH, body=chunks(JOB))),
    bad("a folded coding and a length", post(LENGTH, b"Transfer-Encoding:\r\n chunked\r\n", body=chunks(JOB))),
    bad("two lengths", post(b"Content-Length: 3\r\n", LENGTH, body=JOB)),
    bad("two lengths in one line", post(b"Content-Length: 3, %d\r\n" % len(JOB), body=JOB)),
    bad("a negative length", post(b"Content-Length: -1\r\n")),
    bad("a signed length", post(b"Content-Length: +3\r\n", body=b"abc")),
    bad("a hexadecimal length", post(b"Content-Length: 0x3\r\n", body=b"abc")),
    bad("a length with an exponent", post(b"Content-Length: 1e1\r\n", body=b"abc")),
    bad("a length in two words", post(b"Content-Length: 1 0\r\n", body=b"abc")),
    bad("an empty length", post(b"Content-Length:\r\n", body=b"abc")),
    bad("a length of 30 digits", post(b"Content-Length: " + b"9" * 30 + b"\r\n")),
    bad("a length of 20 digits", post(b"Content-Length: " + b"9" * 20 + b"\r\n"), 413),
    bad("a space before the colon of a length", post(b"Content-Length : 3\r\n", body=b"abc")),
    bad("a coding in HTTP/1.0", b"POST /jobs/ HTTP/1.0\r\n" + FIXED + CHUNKED + b"\r\n" + chunks(JOB)),
    bad("two codings", post(CHUNKED, CHUNKED, body=chunks(JOB)), 501),
    bad("another coding", post(b"Transfer-Encoding: gzip, chunked\r\n", body=chunks(JOB)), 501),
    bad("an unknown coding", post(b"Transfer-Encoding: xchunked\r\n", body=chunks(JOB)), 501),
    bad("a coding after a vertical tab", post(b"Transfer-Encoding: \x0bchunked\r\n", body=chunks(JOB))),
    bad("a space before the colon of a coding", post(b"Transfer-Encoding : chunked\r\n", body=chunks(JOB))),
]  # fmt: skip
CHUNKS = [
    fine("chunks", post(CHUNKED, body=chunks(JOB[:7], JOB[7:])), 200),
    fine("a coding in another letter case", post(b"transfer-encoding: Chunked\r\n", body=chunks(JOB)), 200),
    fine("a chunk extension and a trailer", post(CHUNKED, body=b"%x;a=b\r\n%b\r\n0\r\nA: b\r\n\r\n" % (len(JOB), JOB)), 200),
    fine("a bare CR in a chunk extension, which is ignored", post(CHUNKED, body=b"%x;\r\r\n%b\r\n0\r\n\r\n" % (len(JOB), JOB)), 200),
    fine("a length in the trailer", post(CHUNKED, body=chunks(JOB)[:-2] + b"Content-Length: 9\r\n\r\n"), 200),
    bad("an invalid chunk size", post(CHUNKED, body=b"xyz\r\nabc\r\n")),
    bad("a negative chunk size", post(CHUNKED, body=b"-1\r\nabc\r\n")),
    bad("a chunk size with 0x", post(CHUNKED, body=b"0x3\r\nabc\r\n")),
    bad("an empty chunk size", post(CHUNKED, body=b"\r\nabc\r\n")),
    bad("a chunk size of 30 digits", post(CHUNKED, body=b"F" * 30 + b"\r\n")),
    bad("a chunk longer than its size", post(CHUNKED, body=b"1\r\nabc\r\n0\r\n\r\n")),
    bad("a chunk size ended by a bare LF", post(CHUNKED, body=b"1\na\r\n0\r\n\r\n")),
    bad("a chunk ended by a bare LF", post(CHUNKED, body=b"1\r\na\n0\r\n\r\n")),
    bad("an invalid trailer", post(CHUNKED, body=chunks(JOB)[:-2] + b"no colon\r\n\r\n")),
    bad("a chunk extension over the limit of a head", post(CHUNKED, body=b"1;" + b"a" * 40_000 + b"\r\na\r\n"), 431),
    bad("a trailer over the limit of a head", post(CHUNKED, body=chunks(JOB)[:-2] + b"A: " + b"b" * 40_000 + b"\r\n\r\n"), 431),
    bad(
        "20,000 chunks of one byte", post(CHUNKED, body=chunks(*[b"a"] * 20_000)),
        shown="… `Transfer-Encoding: chunked\\r\\n\\r\\n`, then 20,000 times `1\\r\\na\\r\\n`",
    ),
    bad(
        "20,000 chunks of 16 bytes with extensions of 100 bytes",
        post(CHUNKED, body=(b"10;" + b"e" * 100 + b"\r\n" + b"a" * 16 + b"\r\n") * 20_000),
        shown="… `Transfer-Encoding: chunked\\r\\n\\r\\n`, then 20,000 times `10;{e × 100}\\r\\n{a × 16}\\r\\n`",
    ),
]  # fmt: skip
LINES = [
    fine("a head with bare line feeds (RFC 9112, 2.2)", get().replace(b"\r\n", b"\n"), 200),
    bad("an empty line before the request", b"\r\n" + get()),
    fine(
        "a folded header, read as one line (RFC 9112, 5.2)", get(b"/livez", b"A: b\r\n  c\r\n"), 200
    ),
    fine("a header with bytes outside ASCII", get(b"/livez", b"A: caf\xe9\r\n"), 200),
    bad("a folded first header", b"GET /livez HTTP/1.1\r\n a: b\r\n" + FIXED + b"\r\n"),
    bad("no Host", b"GET /livez HTTP/1.1\r\n\r\n"),
    bad("two hosts", get(b"/livez", b"Host: y\r\n")),
    bad("a header without a name", get(b"/livez", b": b\r\n")),
    bad("a header without a colon", get(b"/livez", b"b\r\n")),
    bad("a space in a header's name", get(b"/livez", b"A b: c\r\n")),
    bad("NUL in a header", get(b"/livez", b"A: b\x00c\r\n")),
    bad("a bare CR in a header", get(b"/livez", b"A: b\rc\r\n")),
    bad("two spaces in the request line", get().replace(b" ", b"  ", 1)),
    bad("no version", b"GET /livez\r\n" + FIXED + b"\r\n"),
    bad("a version in lower case", get().replace(b"HTTP", b"http")),
    bad("an invalid method", get(method=b"G(ET")),
    bad("a target with bytes outside ASCII", get("/é".encode())),
    bad("NUL in the target", get(b"/\x00")),
    bad("a TLS hello", bytes.fromhex("16030100c8010000c40303") + b"\r\n\r\n"),
    bad("an SMTP client", b"EHLO x\r\nMAIL FROM:<a@x>\r\n\r\n"),
    last("noise after a good request", get() + b"\x00noise\r\n\r\n", 200, 400),
]
ASKED = [
    fine("an unknown path", get(b"/nope"), 404),
    fine("a wrong method, with Allow", get(b"/livez", method=b"DELETE"), 405),
    fine("an unknown method", get(b"/livez", method=b"BREW"), 405),
    fine("a method in lower case", get(b"/livez", method=b"get"), 405),
    fine("TRACE", get(method=b"TRACE"), 405),
    fine("HEAD", get(method=b"HEAD"), 200),
    fine("OPTIONS, with Allow and without a key", b"OPTIONS /jobs/ HTTP/1.1\r\nHost: x\r\n\r\n", 204),
    fine("OPTIONS of the whole server", get(b"*", method=b"OPTIONS"), 204),
    fine("CONNECT", get(b"x:443", method=b"CONNECT"), 400),
    fine("a target in absolute form", get(b"http://x/livez"), 200),
    fine("a target that is not a path", get(b"livez"), 400),
    fine("a target with a bad escape", get(b"/jobs/%zz"), 400),
    fine("a target with an escaped NUL", get(b"/jobs/%00"), 400),
    fine("a target that is not UTF-8", get(b"/jobs/%ff"), 400),
    fine("a target with `..`", get(b"/jobs/../livez"), 404),
    fine("a query of 200 fields", get(b"/jobs/?" + b"a=1&" * 200), 400, shown="`GET /jobs/?`, then 200 times `a=1&`"),
    fine("no key", b"GET /jobs/ HTTP/1.1\r\nHost: x\r\n\r\n", 401),
    fine("a body of another type", post(LENGTH, b"Content-Type: text/html\r\n", body=JOB), 415),
    last("HTTP/1.0", b"GET /livez HTTP/1.0\r\n\r\n", 200),
    last("HTTP/1.0 with keep-alive", b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200),
    bad("HTTP/2.0", get().replace(b"1.1", b"2.0"), 505),
    bad("HTTP/2 with prior knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    bad("HTTP/0.9", b"GET /livez\r\n\r\n"),
    fine("an upgrade that the route does not accept", get(b"/livez", b"Connection: upgrade\r\nUpgrade: h2c\r\n"), 200),
]  # fmt: skip
SIZES = [
    bad("a target over the limit", get(b"/" + b"a" * 20_000), 431),
    bad("a header over the limit", get(b"/livez", b"A: " + b"b" * 20_000 + b"\r\n"), 431),
    bad(
        "headers over the limit", get(b"/livez", *(b"A%d: b\r\n" % n for n in range(3_000))), 431,
        shown="`GET /livez HTTP/1.1\\r\\n`… and 3,000 headers",
    ),
    bad("a line without an end", b"GET /" + b"a" * 40_000, 431),
    bad("a body over the limit, announced", post(b"Content-Length: 1048577\r\n"), 413),
    bad(
        "a body over the limit, sent", post(b"Content-Length: 2000000\r\n", body=b"a" * 2_000_000),
        413, shown="… `Content-Length: 2000000\\r\\n\\r\\n`, then 2,000,000 bytes",
    ),
    bad(
        "a body over the limit, in chunks", post(CHUNKED, body=chunks(b"a" * 2_000_000)),
        413, shown="… `Transfer-Encoding: chunked\\r\\n\\r\\n`, then a chunk of 2,000,000 bytes",
    ),
    last(
        "a body without a key",
        b"POST /jobs/ HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n", 401,
    ),
]  # fmt: skip
TURNS = [
    fine("one request after another", get() + get(b"/nope"), 200, 404),
    fine(
        "50 requests in one write, answered in order", (get() + get(b"/nope")) * 25,
        *(200, 404) * 25, shown="25 times `GET /livez` and `GET /nope`",
    ),
    last("Connection: close", get(b"/livez", b"Connection: close\r\n"), 200),
    last("close among other options", get(b"/livez", b"Connection: TE , Close\r\n"), 200),
    fine("an option that only begins like close", get(b"/livez", b"Connection: closed\r\n"), 200),
    fine("Expect: 100-continue, and the body without waiting", post(LENGTH, b"Expect: 100-continue\r\n", body=JOB), 200),
    Case("Expect: 100-continue, and no key", b"POST /jobs/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" + LENGTH + b"\r\n", (401,), closes=True, alone=True),
    Case("half closed after a request", get(), (200,), closes=True, half=True),
    Case("half closed after two requests", get() + post(LENGTH, body=JOB), (200, 200), closes=True, half=True),
    Case("half closed in a head", get()[:-3], (), closes=True, half=True),
    Case("half closed in a body", post(LENGTH, body=JOB[:-1]), (), closes=True, half=True),
    Case("half closed in a chunk", post(CHUNKED, body=chunks(JOB)[:-9]), (), closes=True, half=True),
    Case("half closed immediately", b"", (), closes=True, half=True),
]  # fmt: skip
TIMES = [
    Case("silence", b"", (), closes=True, silent=True),
    Case("silence after a reply", get(), (200,), closes=True, silent=True),
    Case("a head that stops", get()[:-3], (408,), closes=True, silent=True),
    Case("a second head that stops", get() + b"GET", (200, 408), closes=True, silent=True),
    Case("a body that stops", post(LENGTH, body=JOB[:-1]), (408,), closes=True, silent=True),
    Case("a body that never begins", post(LENGTH, b"Expect: 100-continue\r\n"), (408,), closes=True, silent=True),
    Case("a chunk of 2^64 - 1 bytes that never arrives", post(CHUNKED, body=b"f" * 16 + b"\r\n"), (408,), closes=True, silent=True),
    Case("an unread body that never arrives", get(b"/nope", b"Content-Length: 10\r\n"), (404,), closes=True, silent=True),
]  # fmt: skip
GROUPS = {
    "Lengths and codings": LENGTHS,
    "Chunks": CHUNKS,
    "Lines and headers": LINES,
    "Methods, targets, versions": ASKED,
    "Sizes": SIZES,
    "One request after another, and half-closed clients": TURNS,
    "Time": TIMES,
}
CASES = {case.title: case for cases in GROUPS.values() for case in cases}


def tables() -> str:
    """Return the cases as Markdown."""
    parts: list[str] = []
    for heading, cases in GROUPS.items():
        rows = [f"| {case.title} | {_shown(case)} | {_status_text(case)} |" for case in cases]
        parts.append(
            "\n".join([f"### {heading}", "", "| | sent | reply |", "|---|---|---|", *rows])
        )
    return "\n\n".join(parts) + "\n"


def _status_text(case: Case) -> str:
    """Return the reply's column of the page."""
    counted = case.replies if len(case.replies) < 10 else case.replies[:4]
    statuses = ", ".join(str(status) for status in counted)
    statuses += ", …" if len(counted) < len(case.replies) else ""
    return f"{statuses}{', ' if statuses else ''}closed" if case.closes else statuses


def _shown(case: Case) -> str:
    """Return what is sent, with placeholders for what all requests have in common."""
    after = ", then silence" if case.silent else ", then a half-close" if case.half else ""
    if case.shown:
        return case.shown + after
    text = case.sent.replace(JOB, b"{JOB}").replace(FIXED, b"{FIXED}")
    text = re.sub(rb"(.)\1{11,}", lambda run: b"{%b x %d}" % (run[1], len(run[0])), text)
    escaped = repr(text)[2:-1].replace("\\'", "'")
    return (f"`{escaped}`{after}" if escaped else f"nothing{after}").replace("|", "\\|")
