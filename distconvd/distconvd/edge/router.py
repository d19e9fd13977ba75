"""Find the route for a method and a path: a dictionary for fixed paths, a trie for others.

Every path works with and without one trailing slash, and under `/api/v1` too. A fixed segment
wins over `{name}`, and that over `{name...}`. Patterns are checked when the router is constructed:
two routes for one method and path, or a misplaced capture, raise there and not when serving.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from distconvd.edge.http import Route
from distconvd.edge.target import decode_segments
from distconvd.errors import BadRequest, MethodNotAllowed, NotFound

PREFIX = "/api/v1"
_PREFIX_SEGMENTS = ["api", "v1"]
_CAPTURE = re.compile(r"\{([a-z_][a-z0-9_]*)(\.\.\.)?\}")
_NO_PARAMS: Mapping[str, str] = {}


class Match(NamedTuple):
    """The result of a look-up: the route, what its pattern captured, and the canonical path."""

    route: Route
    params: Mapping[str, str]
    path: str


class _Entry(NamedTuple):
    """A route with the names of its captures, in order."""

    route: Route
    names: tuple[str, ...]


class _Node:
    """One position in the trie; `methods` is not empty where a pattern ends."""

    __slots__ = ("children", "methods", "param", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.param: _Node | None = None
        self.rest: _Node | None = None
        self.methods: dict[str, _Entry] = {}


class Router:
    """The route table, ready for look-ups.

    Raises:
        ValueError: a pattern is malformed, or two routes have the same method and path.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        self._fixed: dict[str, tuple[str, dict[str, _Entry]]] = {}
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        if not route.pattern.startswith("/"):
            raise ValueError(f"pattern {route.pattern!r} does not begin with '/'")
        segments = [segment for segment in route.pattern.split("/") if segment]
        node = self._root
        for position, segment in enumerate(segments):
            node = _child(node, segment, route, last=position == len(segments) - 1)
        if route.method in node.methods:
            raise ValueError(f"two routes for {route.method} {route.pattern}")
        names = tuple(capture[1] for capture in _CAPTURE.finditer(route.pattern))
        if len(set(names)) < len(names):
            raise ValueError(f"pattern {route.pattern!r} captures one name twice")
        node.methods[route.method] = _Entry(route, names)
        if "{" not in route.pattern:
            self._add_fixed("/" + "/".join(segments), node.methods)

    def _add_fixed(self, path: str, methods: dict[str, _Entry]) -> None:
        bare = "" if path == "/" else path
        for raw in (bare, bare + "/", PREFIX + bare, PREFIX + bare + "/"):
            self._fixed[raw or "/"] = (path, methods)

    def match(self, method: str, raw_path: str) -> Match:
        """Return the route for a path as it was sent, still percent-encoded.

        Raises:
            NotFound: no pattern matches the path.
            MethodNotAllowed: one matches, but not with this method; carries `Allow`.
            BadRequest: the path cannot be decoded.
        """
        fixed = self._fixed.get(raw_path)
        if fixed is not None:
            path, methods = fixed
            return Match(_for_method(methods, method).route, _NO_PARAMS, path)
        node, segments, captured = self._find(raw_path)
        route, names = _for_method(node.methods, method)
        params = dict(zip(names, captured, strict=True))
        return Match(route, params, "/" + "/".join(segments))

    def allowed(self, raw_path: str) -> str:
        """Return the `Allow` header of a path; raises as `match` does."""
        if raw_path == "*":
            return "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
        fixed = self._fixed.get(raw_path)
        return _allow(fixed[1] if fixed is not None else self._find(raw_path)[0].methods)

    def _find(self, raw_path: str) -> tuple[_Node, list[str], list[str]]:
        segments = decode_segments(raw_path) if raw_path.startswith("/") else ["*"]
        if segments[:2] == _PREFIX_SEGMENTS:
            segments = segments[2:]
        captured: list[str] = []
        node = _walk(self._root, segments, 0, captured)
        if node is None:
            raise NotFound("This path does not exist.")
        return node, segments, captured


def _child(node: _Node, segment: str, route: Route, *, last: bool) -> _Node:
    """Return the child node for one segment of a pattern; create it if needed."""
    capture = _CAPTURE.fullmatch(segment)
    if capture is None:
        if "{" in segment or "}" in segment:
            raise ValueError(f"pattern {route.pattern!r}: {segment!r} is not a '{{name}}'")
        return node.children.setdefault(segment, _Node())
    if capture[2] is None:
        node.param = node.param or _Node()
        return node.param
    if not last:
        raise ValueError(f"pattern {route.pattern!r}: {segment!r} is not at its end")
    node.rest = node.rest or _Node()
    return node.rest


def _walk(node: _Node, segments: list[str], depth: int, captured: list[str]) -> _Node | None:
    """Find the node for the segments from `depth` on, most specific first.

    It backtracks from dead ends, but never goes deeper than the longest pattern, so its cost is
    bounded by the route table and not by what a client sends.
    """
    if depth == len(segments):
        return node if node.methods else None
    segment = segments[depth]
    below = node.children.get(segment)
    if below is not None and (found := _walk(below, segments, depth + 1, captured)):
        return found
    if node.param is not None and segment:
        captured.append(segment)
        if found := _walk(node.param, segments, depth + 1, captured):
            return found
        captured.pop()
    if node.rest is not None:
        captured.append(_join_rest(segments[depth:]))
        return node.rest
    return None


def _join_rest(segments: list[str]) -> str:
    """Join what `{name...}` captures; reject segments that would change the joined path."""
    for segment in segments:
        if segment in ("", ".", "..") or "/" in segment:
            raise BadRequest(
                "The path has a segment that is empty, '.' or '..', or contains an encoded slash."
            )
    return "/".join(segments)


def _for_method(methods: dict[str, _Entry], method: str) -> _Entry:
    entry = methods.get(method)
    if entry is None and method == "HEAD":
        entry = methods.get("GET")
    if entry is None:
        allow = _allow(methods)
        raise MethodNotAllowed(f"This path accepts only {allow}.", headers={"Allow": allow})
    return entry


def _allow(methods: dict[str, _Entry]) -> str:
    implied = {"HEAD", "OPTIONS"} if "GET" in methods else {"OPTIONS"}
    return ", ".join(sorted(implied | methods.keys()))
