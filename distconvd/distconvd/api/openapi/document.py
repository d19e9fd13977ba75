"""Generate `GET /openapi.json`, an OpenAPI 3.1 document, from the route table and its types.

Nothing is written twice: paths, methods and roles come from the routes; bodies and replies are the
types that handlers decode and encode, turned into schemas by msgspec; what every route of a kind
can answer (401 if it needs a key, 413 if it has a body) follows from the route. The rest is the
`Doc` of each route. A plugin's route without one is listed with what is known.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast, get_args, get_type_hints

import msgspec

from distconvd import __version__
from distconvd.api.openapi.operations import OPENAPI
from distconvd.api.openapi.route_table import path_of
from distconvd.edge.doc import Answer, Doc, Parameter
from distconvd.edge.http import Request, Response, Route
from distconvd.edge.problems import CONTENT_TYPE as PROBLEM
from distconvd.edge.problems import Crash, NotImplementedHere, VersionNotSupported, type_of
from distconvd.errors import (
    BadRequest,
    BodyTooLarge,
    DistconvError,
    Forbidden,
    HeadTooLarge,
    MethodNotAllowed,
    RequestTimeout,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
)

Tree = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
_ANY = (
    BadRequest,
    MethodNotAllowed,
    RequestTimeout,
    HeadTooLarge,
    Crash,
    NotImplementedHere,
    Unavailable,
    VersionNotSupported,
)
"""Errors that any request may get; most come from the edge, 405 from another method of the path."""
_ALWAYS = {
    401: {"WWW-Authenticate": "`Bearer`"},
    405: {"Allow": "The methods that the path accepts."},
    416: {"Content-Range": "The actual size of the file: `bytes */SIZE`."},
    429: {"Retry-After": "When to try again, in seconds."},
    503: {"Retry-After": "When to try again, in seconds."},
}
"""Headers of the problems of a status, in addition to `X-Request-Id`."""
_SOMETIMES = {415: {"Accept": "The types of a body that the path accepts."}}
_KEYED = (Unauthorized, Forbidden, TooManyRequests)
_WITH_BODY = (BodyTooLarge, UnsupportedMediaType)
_CAPTURE = re.compile(r"\{([a-z_]+)(\.\.\.)?\}")
_NO_DOC = Doc({200: Answer("See the plugin's own documentation.", None, "*/*")})

DESCRIPTION = """\
Dispatches transcoding jobs to engines. docs/protocol.md describes the rules behind it: lifecycles,
leases, fencing tokens, failures. Every path also works under `/api/v1`, with and without one
trailing slash. HEAD works wherever GET does, OPTIONS everywhere. `x-role` is the role that the key
must have; a key with the role `admin` may do everything."""


class Problem(msgspec.Struct, frozen=True):
    """What went wrong (RFC 9457). Programs should use `type`, which is stable, not the English text."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    field: str | msgspec.UnsetType = msgspec.UNSET
    """The field that is wrong, if the error concerns one."""


class OpenApi:
    """The handler of `/openapi.json`.

    Args:
        routes: returns the route table; called when it is complete.
    """

    def __init__(self, routes: Callable[[], Sequence[Route]]) -> None:
        self._routes = routes
        self._body = b""

    def routes(self) -> list[Route]:
        """Return the rows of the route table."""
        return [
            Route("GET", "/openapi.json", self.get, "read", summary="This API", doc=OPENAPI),
        ]

    async def get(self, request: Request) -> Response:
        """`GET /openapi.json`."""
        if not self._body:
            self._body = msgspec.json.encode(document(self._routes()))
        return Response(200, self._body)


def document(routes: Iterable[Route]) -> Tree:
    """Return the OpenAPI document of a route table."""
    routes = list(routes)
    docs = [route.doc or _NO_DOC for route in routes]
    schemas = _Schemas(docs)
    paths: Tree = {}
    problems: Tree = {}
    for route, doc in zip(routes, docs, strict=True):
        path = re.sub(r"\.\.\.}", "}", path_of(route))
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, doc, schemas, problems)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "DistConv",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}, {"url": "/api/v1"}],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": dict(sorted(problems.items())),
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


class _Schemas:
    """The types of all routes as schemas; bounds are part of the types (`model.bounds`)."""

    def __init__(self, docs: Iterable[Doc]) -> None:
        docs = list(docs)
        sent = [doc.request for doc in docs if doc.request is not None]
        described = [a.kind for doc in docs for a in doc.answers.values() if a.kind is not None]
        asked = [parameter.kind for doc in docs for parameter in doc.parameters]
        kinds = [*sent, *described, *asked, Problem]
        template = _SCHEMAS + "{name}"
        found, self.components = msgspec.json.schema_components(kinds, ref_template=template)
        for schema in (*found, *self.components.values()):
            _translate(schema)
        self._found = dict(zip(map(repr, kinds), found, strict=True))
        structs: set[type[msgspec.Struct]] = set()
        for kind in kinds:
            _structs(kind, structs)
        sparse = {kind.__name__ for kind in structs if kind.__struct_config__.omit_defaults}
        of_requests = msgspec.json.schema_components(sent, ref_template=template)[1]
        for name, schema in self.components.items():
            if "properties" not in schema:
                continue
            if name not in of_requests and name not in sparse:
                _require_all(schema)

    def of(self, kind: Any) -> Tree:
        """Return the schema of a type, or a reference to it."""
        return self._found[repr(kind)]


def _translate(tree: Any) -> None:
    r"""Write what is Python's as JSON Schema has it: `\Z` as `$`, a docstring as one paragraph."""
    if isinstance(tree, list):
        for part in tree:  # pyright: ignore[reportUnknownVariableType] - any JSON
            _translate(part)
    if not isinstance(tree, dict):
        return
    schema = cast("Tree", tree)
    for key, value in schema.items():
        if key == "pattern" and isinstance(value, str):
            schema[key] = re.sub(r"\\Z\Z", "$", value)
        elif key == "description" and isinstance(value, str):
            schema[key] = " ".join(value.split())
        else:
            _translate(value)


def _require_all(schema: Tree) -> None:
    """Mark the fields with a default as required: replies contain them, and omit only unset ones.

    Not for a struct that omits its defaults.
    """
    always = set(schema.get("required", ()))
    schema["required"] = [
        name
        for name, described in schema["properties"].items()
        if name in always or "default" in described
    ]


def _structs(hint: Any, found: set[type[msgspec.Struct]]) -> None:
    """Add the structs that a type consists of, at any depth."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and hint not in found:
        found.add(hint)
        for inner in get_type_hints(hint).values():
            _structs(inner, found)
    for part in get_args(hint):
        _structs(part, found)


def _operation(route: Route, doc: Doc, schemas: _Schemas, problems: Tree) -> Tree:
    """Return one method of one path."""
    words = re.sub(r"\W+", "_", f"{route.method.lower()} {route.pattern}").strip("_")
    operation: Tree = {"operationId": words, "tags": [_tag(route)], "summary": route.summary}
    if doc.description:
        operation["description"] = doc.description
    if route.role == "public":
        operation["security"] = []
    else:
        operation["security"] = [{"apiKey": []}, {"bearer": []}]
        operation["x-role"] = route.role
    parameters = [_captured(*found) for found in _CAPTURE.findall(route.pattern)]
    parameters += [_parameter(one, schemas) for one in doc.parameters]
    if parameters:
        operation["parameters"] = parameters
    if route.body != "none":
        operation["requestBody"] = _request_body(route, doc, schemas)
    operation["responses"] = {
        str(status): _answer(answer, schemas) for status, answer in doc.answers.items()
    }
    for status, errors in _errors(route, doc).items():
        own_headers = doc.problem_headers.get(status, {})
        answer = _problem(status, errors, own_headers)
        name = "Or".join(error.__name__ for error in errors)
        if str(status) not in operation["responses"]:
            described = {"$ref": f"#/components/responses/{name}"}
            if not own_headers:
                problems[name] = answer
            operation["responses"][str(status)] = answer if own_headers else described
        else:  # such as 503 of /readyz, which has a body of its own
            operation["responses"][str(status)]["content"] |= answer["content"]
    return operation


def _tag(route: Route) -> str:
    first = route.pattern.split("/")[1]
    if first in ("jobs", "engines", "media", "events"):
        return first
    return "engines" if first == "assign_job" else "operations"


def _captured(name: str, rest: str) -> Tree:
    schema: Tree = {"type": "string", "minLength": 1}
    described: Tree = {"name": name, "in": "path", "required": True, "schema": schema}
    if rest:
        described["description"] = "May contain slashes, unencoded."
    return described


def _parameter(one: Parameter, schemas: _Schemas) -> Tree:
    described: Tree = {
        "name": one.name,
        "in": one.where,
        "description": one.meaning,
        "schema": schemas.of(one.kind),
    }
    if one.example is not None:
        described["example"] = one.example
    return described


def _request_body(route: Route, doc: Doc, schemas: _Schemas) -> Tree:
    content: Tree = {}
    for content_type in route.content_types:
        if doc.request is None:
            content[content_type] = {}
        elif content_type == "application/json":
            examples = {
                f"example_{number}": {"value": _plain(value)}
                for number, value in enumerate(doc.examples, 1)
            }
            content[content_type] = {"schema": schemas.of(doc.request), "examples": examples}
        else:  # lines of JSON, which no schema can describe
            lines = b"\n".join(msgspec.json.encode(value) for value in doc.examples)
            content[content_type] = {"example": lines.decode()}
    return {"required": doc.request_required, "content": content}


def _answer(answer: Answer, schemas: _Schemas) -> Tree:
    headers = {"X-Request-Id": "Also in the daemon's log.", **answer.headers}
    described: Tree = {
        "description": answer.meaning,
        "headers": _headers(headers, answer.maybe_headers),
    }
    if answer.content_type is not None:
        body: Tree = {} if answer.kind is None else {"schema": schemas.of(answer.kind)}
        if answer.example is not None:
            body["example"] = _plain(answer.example)
        others = {name: {"example": example} for name, example in answer.others.items()}
        described["content"] = {answer.content_type: body, **others}
    return described


def _headers(always: Mapping[str, str], sometimes: Mapping[str, str]) -> Tree:
    described: Tree = {}
    for name, meaning in {**always, **sometimes}.items():
        described[name] = {"description": meaning, "schema": {"type": "string"}}
        if name in always:
            described[name]["required"] = True
    return described


def _errors(route: Route, doc: Doc) -> dict[int, list[type[DistconvError]]]:
    """Return the problems that a route may answer with, by status."""
    kinds: set[type[DistconvError]] = {*_ANY, *doc.errors}
    if route.role != "public":
        kinds |= {*_KEYED}
    if route.body != "none":
        kinds |= {*_WITH_BODY}
    by_status: dict[int, list[type[DistconvError]]] = {}
    for kind in sorted(kinds, key=_place):
        by_status.setdefault(kind.status, []).append(kind)
    return by_status


def _place(kind: type[DistconvError]) -> tuple[int, str]:
    return kind.status, kind.__name__


def _problem(
    status: int, kinds: Sequence[type[DistconvError]], sometimes: Mapping[str, str]
) -> Tree:
    """Return the reply for one status; `sometimes` are headers that only this route has."""
    always = {"X-Request-Id": "Also in the daemon's log.", **_ALWAYS.get(status, {})}
    sometimes = {**_SOMETIMES.get(status, {}), **sometimes}
    examples = {
        kind.__name__: {
            "value": {
                "type": type_of(kind),
                "title": kind.title,
                "status": status,
                "detail": (kind.__doc__ or "").partition("\n")[0],
                "request_id": "4d50331a-8",
            }
        }
        for kind in kinds
    }
    schema = {"$ref": _SCHEMAS + Problem.__name__}
    return {
        "description": " Or: ".join(_sentence(kind) for kind in kinds),
        "headers": _headers(always, sometimes),
        "content": {PROBLEM: {"schema": schema, "examples": examples}},
    }


def _sentence(kind: type[DistconvError]) -> str:
    return " ".join((kind.__doc__ or kind.title).split("\n\n")[0].split())


def _plain(value: Any) -> Any:
    """Return an example as JSON types."""
    return msgspec.json.decode(msgspec.json.encode(value))
