"""Test problem documents."""

import json

from distconvd.edge.problems import Crash, problem
from distconvd.errors import BadRequest, CommitFailed, DistconvError, NotFound, Unavailable


def document(error: DistconvError) -> dict[str, object]:
    body = problem(error, "id-1").body
    assert isinstance(body, bytes)
    decoded: dict[str, object] = json.loads(body)
    return decoded


def test_a_problem_has_all_members_of_rfc_9457_and_the_request_id() -> None:
    assert document(NotFound("Job not found")) == {
        "type": "urn:distconv:problem:not-found",
        "title": "Not Found",
        "status": 404,
        "detail": "Job not found",
        "request_id": "id-1",
    }


def test_a_problem_names_the_wrong_field() -> None:
    assert document(BadRequest("is negative", field="job_size"))["field"] == "job_size"


def test_two_errors_with_one_status_differ_in_type() -> None:
    assert document(Unavailable("draining"))["type"] == "urn:distconv:problem:unavailable"
    assert document(CommitFailed("disk full"))["type"] == "urn:distconv:problem:commit-failed"


def test_an_error_s_own_headers_are_sent() -> None:
    response = problem(Unavailable("draining", retry_after_s=7), "id-1")
    assert response.headers == {"Retry-After": "7"}
    assert response.content_type == "application/problem+json"


def test_a_detail_may_quote_any_text() -> None:
    assert document(BadRequest("no: \ud800 \x00 é"))["detail"] == "no: \ud800 \x00 é"


def test_a_crash_reveals_only_its_request_id() -> None:
    assert "id-9" in str(document(Crash("id-9"))["detail"])
