"""A drop's bytes become one JSON object, or an error that names the reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distconv_spool import BadDrop
from distconv_spool.fields import object_to_json, to_json


def test_a_json_drop_is_passed_on_as_it_is() -> None:
    assert to_json("a.json", b' {"b": 1} ') == b' {"b": 1} '


def test_a_toml_drop_becomes_the_same_fields_in_json() -> None:
    toml = b'source_url = "file:///a b"\npriority = 1\n[labels]\nwho = "\xc3\xa9"\n'
    assert json.loads(to_json("A.TOML", toml)) == {
        "source_url": "file:///a b",
        "priority": 1,
        "labels": {"who": "é"},
    }


@pytest.mark.parametrize("name, data", [("a.json", b"{}"), ("a.toml", b"a = 1")])
def test_a_byte_order_mark_is_not_a_part_of_the_fields(name: str, data: bytes) -> None:
    assert to_json(name, b"\xef\xbb\xbf" + data) == to_json(name, data)


@pytest.mark.parametrize(
    "name, data, reason",
    [
        ("a.json", b"", "truncated"),
        ("a.json", b'{"a": 1', "truncated"),
        ("a.json", b'{"a": 1} x', "trailing"),
        ("a.json", b'{"a": NaN}', "malformed"),
        ("a.json", b"[1]", "not an object"),
        ("a.json", b"null", "not an object"),
        ("a.json", b'{"a": "\xff"}', "not UTF-8"),
        ("a.json", "{}".encode("utf-16"), "not UTF-8"),
        ("a.json", b"[" * 200_000, "too deeply"),
        ("a.json", b'{"a":' * 40_000, "too deeply"),
        ("a.toml", b"a = ", "malformed"),
        ("a.toml", b"a = nan", "not a number"),
        ("a.toml", b"a = [1, {b = -inf}]", "not a number"),
        ("a.toml", b"a = '\xff'", "not UTF-8"),
        ("a.toml", b"a = " + b"[" * 100_000, "too deeply"),
        ("a.toml", b"a." * 100_000 + b"a = 1", "dots"),
        ("a.toml", b"a = 1" + b"0" * 4400, "too many digits"),
        ("a.toml", b"a = 0x" + b"f" * 20_000, "too many digits"),
        ("a.json", b'{"a": 1' + b"0" * 4400 + b"}", "out of range"),
    ],
)
def test_anything_else_is_refused_with_the_reason(name: str, data: bytes, reason: str) -> None:
    with pytest.raises(BadDrop, match=reason):
        to_json(name, data)


@pytest.mark.parametrize(
    "fields", [None, [1], {"a": object()}, {"a": "\ud800"}, {"a": float("inf")}]
)
def test_a_value_that_json_cannot_hold_is_refused(fields: object) -> None:
    with pytest.raises(BadDrop):
        object_to_json(fields)


@given(st.binary(max_size=300), st.sampled_from(["a.json", "a.toml"]))
def test_no_bytes_raise_anything_but_bad_drop(data: bytes, name: str) -> None:
    try:
        assert isinstance(json.loads(to_json(name, data)), dict)
    except BadDrop:
        pass
