"""Test the router."""

import pytest

from distconvd.edge.http import Request, Response, Route
from distconvd.edge.router import Router
from distconvd.errors import BadRequest, MethodNotAllowed, NotFound


async def handle(_request: Request) -> Response:
    return Response()


def route(method: str, pattern: str) -> Route:
    return Route(method, pattern, handle)


ROUTES = [
    route("GET", "/"),
    route("GET", "/jobs/"),
    route("POST", "/jobs/"),
    route("GET", "/jobs/{id}"),
    route("DELETE", "/jobs/{id}"),
    route("GET", "/jobs/{id}/why"),
    route("GET", "/jobs/recent"),
    route("PUT", "/media/{name...}"),
    route("GET", "/engines/{engine_id}/ws"),
]


@pytest.fixture
def router() -> Router:
    return Router(ROUTES)


@pytest.mark.parametrize("path", ["/jobs", "/jobs/", "/api/v1/jobs", "/api/v1/jobs/", "/j%6Fbs"])
def test_a_fixed_path_matches_in_all_its_spellings(router: Router, path: str) -> None:
    match = router.match("GET", path)
    assert match.route is ROUTES[1]
    assert match.path == "/jobs"


@pytest.mark.parametrize("path", ["/", "/api/v1", "/api/v1/"])
def test_the_root_matches_in_all_its_spellings(router: Router, path: str) -> None:
    match = router.match("GET", path)
    assert match.route is ROUTES[0]
    assert match.path == "/"


@pytest.mark.parametrize(
    "path, job_id",
    [
        ("/jobs/17_1", "17_1"),
        ("/jobs/17_1/", "17_1"),
        ("/api/v1/jobs/17_1", "17_1"),
        ("/jobs/a%2Fb", "a/b"),
        ("/jobs/%C3%A9", "é"),
        ("/jobs/..", ".."),
    ],
)
def test_a_capture_is_one_decoded_segment(router: Router, path: str, job_id: str) -> None:
    assert router.match("GET", path).params == {"id": job_id}


def test_a_fixed_segment_wins_over_a_capture(router: Router) -> None:
    assert router.match("GET", "/jobs/recent").route is ROUTES[6]


def test_the_router_backtracks_from_a_fixed_segment_to_a_capture(router: Router) -> None:
    match = router.match("GET", "/jobs/recent/why")
    assert match.route is ROUTES[5]
    assert match.params == {"id": "recent"}


def test_the_rest_of_a_path_is_captured_with_its_slashes(router: Router) -> None:
    match = router.match("PUT", "/media/show/s01%20e02/x.mkv")
    assert match.params == {"name": "show/s01 e02/x.mkv"}
    assert match.path == "/media/show/s01 e02/x.mkv"


@pytest.mark.parametrize(
    "path",
    [
        "/media/../x",
        "/media/a/%2e%2e/x",
        "/media/./x",
        "/media/a//x",
        "/media/a%2Fb",
        "/media/..%2f..%2fetc",
    ],
)
def test_a_captured_rest_with_dot_or_empty_segments_is_rejected(router: Router, path: str) -> None:
    with pytest.raises(BadRequest):
        router.match("PUT", path)


@pytest.mark.parametrize(
    "path",
    ["/nope", "/jobs/1/2", "/media", "/media/", "//", "/jobs//", "/api", "/api/v2/jobs", "/JOBS"],
)
def test_an_unknown_path_is_not_found(router: Router, path: str) -> None:
    with pytest.raises(NotFound):
        router.match("PUT", path)


@pytest.mark.parametrize(
    "path, allow",
    [
        ("/jobs", "GET, HEAD, OPTIONS, POST"),
        ("/jobs/1", "DELETE, GET, HEAD, OPTIONS"),
        ("/media/x", "OPTIONS, PUT"),
    ],
)
def test_a_wrong_method_gets_405_with_the_allowed_ones(
    router: Router, path: str, allow: str
) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        router.match("PATCH", path)
    assert caught.value.headers == {"Allow": allow}
    assert router.allowed(path) == allow


def test_head_is_served_by_the_route_for_get(router: Router) -> None:
    assert router.match("HEAD", "/jobs/1").route is ROUTES[3]


@pytest.mark.parametrize(
    "routes",
    [
        [route("GET", "/a"), route("GET", "/a/")],
        [route("GET", "/{x}"), route("GET", "/{y}")],
        [route("GET", "/{x...}"), route("GET", "/{y...}")],
        [route("GET", "jobs")],
        [route("GET", "/a{b}")],
        [route("GET", "/{x...}/b")],
        [route("GET", "/{}")],
        [route("GET", "/{x}/{x}")],
    ],
)
def test_an_ambiguous_or_malformed_route_table_raises_at_construction(routes: list[Route]) -> None:
    with pytest.raises(ValueError, match=r"two routes|pattern"):
        Router(routes)


def test_one_pattern_may_name_its_capture_differently_for_another_method() -> None:
    router = Router([route("GET", "/x/{a}"), route("PUT", "/x/{b}")])
    assert router.match("GET", "/x/1").params == {"a": "1"}
    assert router.match("PUT", "/x/1").params == {"b": "1"}


def test_a_path_of_thousands_of_segments_costs_no_recursion(router: Router) -> None:
    with pytest.raises(NotFound):
        router.match("GET", "/jobs" + "/a" * 8_000)
