"""Write the route table as Markdown: who may call what.

docs/protocol.md contains it, and a test checks that it agrees with the routes.
"""

from collections.abc import Iterable

from distconvd.edge.http import Role, Route

MEANING: dict[Role, str] = {
    "public": "no key",
    "read": "`read`",
    "submit": "`submit`",
    "engine": "`engine`",
    "admin": "`admin`",
}
"""How the table writes each role; a key with the role `admin` may do everything."""


def role_table(routes: Iterable[Route]) -> str:
    """Return the routes as a Markdown table, in the order given."""
    lines = ["| Method | Endpoint | Needs | Purpose |", "|---|---|---|---|"]
    lines += [f"| {r.method} | `{path_of(r)}` | {MEANING[r.role]} | {r.summary} |" for r in routes]
    return "\n".join(lines) + "\n"


def path_of(route: Route) -> str:
    """Return a path as people write it: that of a collection ends with a slash."""
    is_collection = route.pattern in ("/jobs", "/engines", "/assign_job")
    return route.pattern + "/" if is_collection else route.pattern
