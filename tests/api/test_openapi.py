"""Test that `GET /openapi.json` describes the whole API and docs/openapi.json is a copy."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.docs import pages

from distconvd.api.openapi.document import OpenApi, document
from distconvd.edge.http import Request, Response, Route
from distconvd.testing.daemon import Daemon, open_daemon

CHECKED_IN = pages.ROOT / "docs" / "openapi.json"


async def schema_of(daemon: Daemon) -> Any:
    reply = await daemon.client.get("/openapi.json")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    return reply.json()


def operations(served_schema: Any) -> Iterator[tuple[str, str, Any]]:
    for path, methods in served_schema["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


async def test_the_copy_in_docs_is_what_the_daemon_serves(daemon: Daemon) -> None:
    served_schema = json.dumps(await schema_of(daemon), indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("DISTCONV_UPDATE_DOCS"):
        CHECKED_IN.write_text(served_schema, encoding="utf-8")
    assert CHECKED_IN.read_text(encoding="utf-8") == served_schema, (
        "run DISTCONV_UPDATE_DOCS=1 pytest tests/api/test_openapi.py to write it again"
    )


async def test_it_documents_every_route_and_its_role_and_no_other(
    daemon: Daemon,
) -> None:
    served_schema = {
        (method, path.rstrip("/") or "/"): operation.get("x-role", "public")
        for method, path, operation in operations(await schema_of(daemon))
    }
    routes = {
        (route.method, route.pattern.replace("...", "")): route.role
        for route in daemon.parts.routes
    }
    assert served_schema == routes


async def test_every_bundled_route_documents_what_it_accepts_and_answers(daemon: Daemon) -> None:
    silent = [route.pattern for route in daemon.parts.routes if route.doc is None]
    assert silent == []


async def test_a_route_that_reads_a_body_names_its_type_or_accepts_anything(daemon: Daemon) -> None:
    for route in daemon.parts.routes:
        assert route.doc is not None
        assert (route.body == "whole") == (route.doc.request is not None), route.pattern
        assert route.doc.examples or route.body != "whole", route.pattern


async def test_every_reply_is_documented_with_its_problems(daemon: Daemon) -> None:
    served_schema = await schema_of(daemon)
    for method, path, operation in operations(served_schema):
        responses = operation["responses"]
        edge = {"400", "405", "408", "431", "500", "501", "503", "505"}
        assert edge <= set(responses), (method, path)
        assert ("401" in responses) == ("403" in responses) == ("x-role" in operation)
        assert ("429" in responses) == ("x-role" in operation)
        for status in ("413", "415"):
            assert (status in responses) == ("requestBody" in operation), (method, path)


async def test_the_headers_that_problems_carry_are_documented(daemon: Daemon) -> None:
    served_schema = await schema_of(daemon)
    shared, media = (
        served_schema["components"]["responses"],
        served_schema["paths"]["/media/{name}"],
    )
    assert shared["MethodNotAllowed"]["headers"]["Allow"]["required"]
    assert "Accept" in shared["UnsupportedMediaType"]["headers"]
    assert shared["RangeNotSatisfiable"]["headers"]["Content-Range"]["required"]
    assert "X-Upload-Offset" in media["put"]["responses"]["409"]["headers"]
    assert "Repr-Digest" in media["get"]["responses"]["200"]["headers"]


async def test_every_reference_resolves_and_every_component_is_used(
    daemon: Daemon,
) -> None:
    text = json.dumps(await schema_of(daemon))
    served_schema = json.loads(text)
    used = set(re.findall(r'"#/components/(\w+)/(\w+)"', text))
    there = {
        (kind, name)
        for kind in ("schemas", "responses")
        for name in served_schema["components"][kind]
    }
    assert used == there


async def test_every_example_request_is_accepted_by_the_daemon(
    daemon: Daemon,
) -> None:
    for route in daemon.parts.routes:
        assert route.doc is not None
        for example in route.doc.examples:
            raw = msgspec.json.encode(example)
            assert msgspec.json.decode(raw, type=route.doc.request) == example


async def test_every_example_of_a_reply_is_of_its_type(daemon: Daemon) -> None:
    for route in daemon.parts.routes:
        assert route.doc is not None
        for answer in route.doc.answers.values():
            if answer.example is not None:
                raw = msgspec.json.encode(answer.example)
                assert msgspec.json.decode(raw, type=answer.kind) == answer.example


UNBOUNDED = {"error_message", "log_tail", "reason", "temperature_c"}
"""Texts that are cut, not refused; and a temperature may be any number."""


def unbounded(name: str, schema: Any) -> Iterator[str]:
    """Yield the places in a schema where a client could send any amount."""
    limits = {"string": "maxLength", "integer": "maximum", "number": "maximum"}
    limits |= {"array": "maxItems", "object": "maxProperties"}
    needed = limits.get(schema.get("type", ""))
    fixed = {"enum", "pattern", "$ref"} & set(schema)
    if needed is not None and needed not in schema and not fixed:
        yield f"{name}: {needed}"
    inner = [*schema.get("anyOf", []), *(schema[key] for key in ("items",) if key in schema)]
    if isinstance(schema.get("additionalProperties"), dict):
        inner += [schema["additionalProperties"], {"type": "string", **schema["propertyNames"]}]
    for one in inner:
        yield from unbounded(name, one)


async def test_every_field_that_a_client_may_send_has_a_bound(daemon: Daemon) -> None:
    kinds = [route.doc.request for route in daemon.parts.routes if route.doc and route.doc.request]
    sent = msgspec.json.schema_components(kinds)[1]
    served_schema = (await schema_of(daemon))["components"]["schemas"]
    missing = [
        f"{kind}.{place}"
        for kind in sent
        for name, schema in served_schema[kind].get("properties", {}).items()
        if name not in UNBOUNDED
        for place in unbounded(name, schema)
    ]
    assert missing == []


async def test_a_reply_has_the_bounds_only_of_what_was_submitted(daemon: Daemon) -> None:
    schemas = (await schema_of(daemon))["components"]["schemas"]
    for kind in ("Job", "JobResult", "Progress"):
        assert not {"minimum", "maxLength"} & set(json.dumps(schemas[kind]).split('"')), kind
    assert "size_bytes" not in schemas["JobResult"]["required"]  # what is not known is left out


async def test_all_fields_of_replies_are_required_and_those_of_requests_only_without_a_default(
    daemon: Daemon,
) -> None:
    schemas = (await schema_of(daemon))["components"]["schemas"]
    assert schemas["Submission"]["required"] == ["source_url", "target_codec"]
    assert set(schemas["Job"]["required"]) == set(schemas["Job"]["properties"])
    assert "field" not in schemas["Problem"]["required"]
    assert "benchmark_requested_at" not in schemas["HeartbeatReply"]["required"]


async def test_the_document_itself_needs_a_key_because_it_reveals_the_plugins(
    daemon: Daemon,
) -> None:
    assert (await daemon.anonymous.get("/openapi.json")).status == 401


async def test_a_plugin_route_without_a_description_is_documented_too(
    tmp_path: Path,
) -> None:
    plugin = tmp_path / "undocumented.py"
    plugin.write_text(
        "from distconvd import hookimpl\n"
        "from distconvd.edge.http import Response, Route\n"
        "async def hello(request): return Response(200, b'{}')\n"
        "@hookimpl\n"
        "def distconvd_register_routes(registrar):\n"
        "    registrar.add('hello', lambda context: [Route('PUT', '/hello/{who}', hello,"
        " 'submit', 'whole', summary='Hello')])\n"
    )
    async with open_daemon(plugins=[str(plugin)]) as daemon:
        served_schema = (await schema_of(daemon))["paths"]["/hello/{who}"]["put"]
    assert served_schema["summary"] == "Hello"
    assert served_schema["x-role"] == "submit"
    assert served_schema["parameters"][0]["name"] == "who"
    assert served_schema["requestBody"]["content"] == {"application/json": {}}


@pytest.mark.parametrize("role", ["public", "read"])
def test_only_public_routes_have_no_security_requirement(role: Any) -> None:
    async def handler(request: Request) -> Response:
        raise NotImplementedError

    served_schema = document([Route("GET", "/x", handler, role)])["paths"]["/x"]["get"]
    assert (served_schema["security"] == []) == (role == "public")


def test_the_route_itself_is_in_the_table() -> None:
    assert [route.pattern for route in OpenApi(list).routes()] == ["/openapi.json"]
