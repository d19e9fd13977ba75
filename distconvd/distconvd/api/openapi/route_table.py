"""The route table as a document: who may call what. docs/protocol.md holds it, and a test holds it
to the routes."""

from collections.abc import Iterable

from distconvd.edge.http import Role, Route

MEANING: dict[Role, str] = {
    "public": "no key",
    "read": "`read`",
    "submit": "`submit`",
    "engine": "`engine`",
    "admin": "`admin`",
}
"""How each role is written; a key with the role `admin` may do everything."""


def role_table(routes: Iterable[Route]) -> str:
    """Return the routes as a Markdown table, in the order given."""
    lines = ["| Method | Endpoint | Needs | Purpose |", "|---|---|---|---|"]
    lines += [f"| {r.method} | `{path_of(r)}` | {MEANING[r.role]} | {r.summary} |" for r in routes]
    return "\n".join(lines) + "\n"


def path_of(route: Route) -> str:
    """Return a path as people write it: what names a collection ends in a slash."""
    is_collection = route.pattern in ("/jobs", "/engines", "/assign_job")
    return route.pattern + "/" if is_collection else route.pattern
