"""Test the decoding of request targets."""

import pytest

from distconvd.edge.target import QUERY_FIELDS_MAX, decode_query, decode_segments, split_target
from distconvd.errors import BadRequest


@pytest.mark.parametrize(
    "target, parts",
    [
        ("/jobs/?a=1", ("/jobs/", "a=1")),
        ("/a?b?c", ("/a", "b?c")),
        ("*", ("*", "")),
        ("http://host:80/jobs?x=", ("/jobs", "x=")),
        ("HTTPS://host", ("/", "")),
        ("http://host?x=1", ("/", "x=1")),
    ],
)
def test_a_target_is_split_into_path_and_query(target: str, parts: tuple[str, str]) -> None:
    assert split_target(target) == parts


@pytest.mark.parametrize("target", ["jobs", "host:80", "ftp://host/x", "?x=1"])
def test_a_target_that_is_not_a_path_is_rejected(target: str) -> None:
    with pytest.raises(BadRequest, match="begins with '/'"):
        split_target(target)


def test_segments_are_decoded_after_they_were_split() -> None:
    assert decode_segments("/a%2Fb/c%20d/%C3%A9/") == ["a/b", "c d", "é"]


@pytest.mark.parametrize("path", ["/%", "/%4", "/%zz", "/%ff", "/%C3", "/a%00b"])
def test_a_target_that_decodes_to_invalid_text_is_rejected(path: str) -> None:
    with pytest.raises(BadRequest):
        decode_segments(path)


def test_a_repeated_query_field_is_joined_with_a_comma() -> None:
    assert decode_query("status=pending&status=assigned&x=") == {
        "status": "pending,assigned",
        "x": "",
    }


def test_a_query_is_decoded_as_utf_8() -> None:
    assert decode_query("label=caf%C3%A9+au") == {"label": "café au"}


def test_a_query_that_is_not_utf_8_is_rejected() -> None:
    with pytest.raises(BadRequest, match="UTF-8"):
        decode_query("a=%ff")


def test_a_query_with_too_many_fields_is_rejected() -> None:
    with pytest.raises(BadRequest, match="more than"):
        decode_query("&".join(["a=1"] * (QUERY_FIELDS_MAX + 1)))
