"""Test CORS: pages on the list may use the API's headers and replies, others may not."""

import socket
from typing import Any

import pytest
from tests.api.kit import Farm, problem
from tests.push.kit import HANDSHAKE

from distconvd.config import load_config
from distconvd.edge.cors import PREFLIGHT_MAX_AGE_S, Cors, parse_origin
from distconvd.edge.doc import Answer, Doc, Parameter
from distconvd.edge.http import Request, Response, Route
from distconvd.errors import ConfigError
from distconvd.testing.daemon import Reply, open_daemon

PAGE = "https://farm.example"
FOREIGN = [
    "https://evil.example",
    "https://farm.example.evil.example",
    "http://farm.example",
    "null",
]
JOB = {"source_url": "file:///a.mov", "target_codec": "h264"}


def cors_headers(reply: Reply) -> dict[str, str]:
    return {
        n: v for n, v in reply.headers.items() if n.startswith("access-control-") or n == "vary"
    }


def words(text: str) -> set[str]:
    return {word.strip().lower() for word in text.split(",")}


async def preflight(daemon: Any, path: str, method: str, origin: str = PAGE) -> Reply:
    headers = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": "content-type,x-api-key",
    }
    reply: Reply = await daemon.anonymous.request("OPTIONS", path, None, headers)
    return reply


# -------------------------------------------------------------------------------------- the list


async def test_without_the_setting_no_reply_has_cors_headers() -> None:
    async with open_daemon() as daemon:
        assert cors_headers(await daemon.client.get("/jobs/", origin=PAGE)) == {}
        reply = await preflight(daemon, "/jobs/", "POST")
        assert (reply.status, cors_headers(reply)) == (204, {})


@pytest.mark.parametrize("path, status", [("/jobs/", 200), ("/jobs/1", 404), ("/nope", 404)])
async def test_a_page_on_the_list_may_read_replies_and_problems(path: str, status: int) -> None:
    async with open_daemon(cors_origins=["https://other.example", PAGE]) as daemon:
        reply = await daemon.client.get(path, origin=PAGE)
        assert reply.status == status
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert reply.headers["vary"] == "Origin"
        exposed_names = words(reply.headers["access-control-expose-headers"])
        assert exposed_names >= {
            "etag",
            "x-next-cursor",
            "retry-after",
            "x-request-id",
            "www-authenticate",
        }
        assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_page_that_is_not_on_the_list_gets_no_cors_headers(origin: str) -> None:
    async with open_daemon(cors_origins=[PAGE]) as daemon:
        reply = await daemon.client.get("/jobs/", origin=origin)
        assert cors_headers(reply) == {"vary": "Origin"}
        assert cors_headers(await preflight(daemon, "/jobs/", "POST", origin)) == {"vary": "Origin"}


async def test_a_page_without_a_key_gets_a_readable_401() -> None:
    async with open_daemon(cors_origins=[PAGE]) as daemon:
        reply = await daemon.anonymous.get("/jobs/", origin=PAGE)
        assert reply.status == 401
        assert reply.headers["access-control-allow-origin"] == PAGE


async def test_a_reply_without_an_origin_still_has_vary_origin_for_caches() -> None:
    async with open_daemon(cors_origins=[PAGE]) as daemon:
        assert cors_headers(await daemon.client.get("/jobs/")) == {"vary": "Origin"}


async def test_a_preflight_needs_no_key_and_gets_methods_headers_and_max_age() -> None:
    async with open_daemon(cors_origins=[PAGE]) as daemon:
        reply = await preflight(daemon, "/jobs/17", "PATCH")
        assert reply.status == 204
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert words(reply.headers["access-control-allow-methods"]) >= {"get", "patch", "delete"}
        assert words(reply.headers["access-control-allow-headers"]) >= {
            *("content-type", "x-api-key", "authorization", "if-match", "prefer"),
            *("idempotency-key", "last-event-id", "x-request-id"),
        }
        assert reply.headers["access-control-max-age"] == str(PREFLIGHT_MAX_AGE_S)


async def test_a_page_may_send_and_read_every_header_that_a_route_documents() -> None:
    async with open_daemon(cors_origins=[PAGE]) as daemon:
        reply = await preflight(daemon, "/jobs/", "POST")
        allowed = words(reply.headers["access-control-allow-headers"])
        reply = await daemon.client.get("/jobs/", origin=PAGE)
        exposed = words(reply.headers["access-control-expose-headers"])
        document = (await daemon.client.get("/openapi.json")).json()
    for methods in document["paths"].values():
        for operation in methods.values():
            taken = {
                p["name"].lower() for p in operation.get("parameters", []) if p["in"] == "header"
            }
            answers = [a for a in operation["responses"].values() if "$ref" not in a]
            exposed_names = {
                name.lower() for answer in answers for name in answer.get("headers", {})
            }
            assert taken <= allowed
            assert exposed_names <= exposed


async def test_any_origin_is_allowed_by_a_star_and_never_with_credentials() -> None:
    async with open_daemon(cors_origins=["*"]) as daemon:
        reply = await daemon.client.get("/jobs/", origin="https://any.example")
        assert reply.headers["access-control-allow-origin"] == "*"
        assert "vary" not in reply.headers
        assert "access-control-allow-credentials" not in reply.headers


def request(**headers: str) -> Request:
    return Request("GET", "/x", {}, headers, {}, None, "id", "-")  # type: ignore[arg-type]


async def _answer(_request: Request) -> Response:
    return Response()


def test_pages_may_use_the_headers_of_a_plugin_s_route_and_its_vary_is_kept() -> None:
    doc = Doc(
        {200: Answer("It.", maybe_headers={"X-Told": "Something."})},
        parameters=(Parameter("X-Sent", "header", "Something."),),
    )
    cors = Cors([PAGE], [Route("GET", "/x", _answer, doc=doc)])
    reply = cors.with_headers(Response(headers={"Vary": "Accept"}), request(origin=PAGE))
    assert isinstance(reply, Response)
    assert reply.headers["Vary"] == "Accept, Origin"
    assert "X-Told" in reply.headers["Access-Control-Expose-Headers"]
    assert "X-Sent" in cors._sent


def test_a_reply_that_a_handler_reuses_is_not_modified() -> None:
    kept = Response(headers={"ETag": '"1"'})
    Cors([PAGE], []).with_headers(kept, request(origin=PAGE))
    assert kept.headers == {"ETag": '"1"'}


# ----------------------------------------------------------------------------- without a key


@pytest.mark.parametrize("origin", FOREIGN)
async def test_no_foreign_page_may_use_a_daemon_without_a_key(origin: str) -> None:
    async with open_daemon(api_key=None) as daemon:
        before = Farm(daemon).stored()
        reply = await daemon.anonymous.post("/jobs/", JOB, origin=origin)
        assert "cors_origins" in problem(reply, 403)["detail"]
        handshake = {n: v for n, v in HANDSHAKE.items() if n != "x-api-key"} | {"origin": origin}
        reply = await daemon.anonymous.request("GET", "/engines/e1/ws", None, handshake)
        assert reply.status == 403
        assert Farm(daemon).stored() == before
        assert (await daemon.anonymous.get("/livez", origin=origin)).status == 200


@pytest.mark.parametrize(
    "host, origin, status",
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080", 200),
        ("localhost:8080", "http://localhost:8080", 200),
        ("[::1]:8080", "http://[::1]:8080", 200),
        ("localhost:8080", "http://localhost:3000", 403),
        ("evil.example:8080", "http://evil.example:8080", 403),
        ("", "http://", 403),
    ],
)
async def test_the_daemon_s_own_page_may_use_it_but_not_under_a_rebound_name(
    host: str, origin: str, status: int
) -> None:
    async with open_daemon(api_key=None) as daemon:
        reply = await daemon.anonymous.post("/jobs/", JOB, host=host, origin=origin)
        assert reply.status == status


@pytest.mark.parametrize(
    "host, status",
    [
        ("evil.example", 403),
        ("evil.example:8080", 403),
        ("127.0.0.1.evil.example", 403),
        ("EVIL.example.", 403),
        ("bench", 200),
        ("", 200),
        ("127.0.0.1:8080", 200),
        ("192.168.1.7", 200),
        ("[::1]:8080", 200),
        ("LOCALHOST", 200),
        ("a.localhost:8080", 200),
        ("farm.example", 200),  # of cors_origins
        (socket.gethostname(), 200),
    ],
)
async def test_a_daemon_without_a_key_rejects_host_names_that_a_stranger_can_rebind(
    host: str, status: int
) -> None:
    async with open_daemon(api_key=None, cors_origins=["https://farm.example"]) as daemon:
        reply = await daemon.anonymous.get("/jobs/", host=host)
        assert reply.status == status
        if status == 403:
            assert "start the daemon with a key" in problem(reply, 403)["detail"]
        assert (await daemon.anonymous.get("/livez", host=host)).status == 200
    async with open_daemon() as daemon:
        assert (await daemon.client.get("/jobs/", host=host)).status == 200


async def test_a_page_on_the_list_may_use_a_daemon_without_a_key() -> None:
    async with open_daemon(api_key=None, cors_origins=[PAGE]) as daemon:
        assert (await daemon.anonymous.post("/jobs/", JOB, origin=PAGE)).status == 200


async def test_a_foreign_page_with_the_key_is_accepted() -> None:
    async with open_daemon() as daemon:
        assert (await daemon.client.post("/jobs/", JOB, origin="https://any.example")).status == 200


# ------------------------------------------------------------------------------- the setting


@pytest.mark.parametrize(
    "given, origin",
    [
        ("https://farm.example", "https://farm.example"),
        (" HTTPS://Farm.Example ", "https://farm.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("https://farm.example:80", "https://farm.example:80"),
        ("*", "*"),
    ],
)
def test_an_origin_is_normalized_as_browsers_send_it(given: str, origin: str) -> None:
    assert parse_origin(given) == origin


@pytest.mark.parametrize(
    "given",
    [
        *("", "null", "farm.example", "https://", "https://farm.example/", "https://a b"),
        *("https://*.farm.example", "ftp://farm.example", "https://farm.example/app"),
        *("https://farm.example:443", "http://farm.example:80", "https://u:p@farm.example"),
    ],
)
def test_an_invalid_origin_is_a_config_error_that_names_it(given: str) -> None:
    with pytest.raises(ConfigError, match="cors_origins: "):
        load_config({"api_key": "k", "cors_origins": [given]}, {})


def test_origins_may_come_from_the_environment() -> None:
    environ = {"DISTCONV_CORS_ORIGINS": "https://a.example,https://b.example"}
    config = load_config({}, environ).config
    assert config.cors_origins == ["https://a.example", "https://b.example"]


def test_any_origin_without_a_key_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="any web page"):
        load_config({"cors_origins": ["*"]}, {})
