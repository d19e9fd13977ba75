"""An id can be added to any drop's name and removed again."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distconv_spool.names import is_drop, key_in, mint_key, printable, tagged, untagged

file_names = (
    st.binary(min_size=1, max_size=250)
    .filter(lambda raw: b"/" not in raw and b"\0" not in raw)
    .map(lambda raw: os.fsdecode(raw) + ".json")
)


@pytest.mark.parametrize(
    "name",
    [
        "a.json",
        "a.toml",
        "A.JSON",
        ".a.json",
        "a b.json",
        "a\nb.json",
        "é漢🎬.toml",
        "~.json",
        ".json",
    ],
)
def test_a_name_that_ends_in_json_or_toml_is_a_drop(name: str) -> None:
    assert is_drop(name)


@pytest.mark.parametrize(
    "name",
    [
        "a.txt",
        "a.json.part",
        "a.json~",
        ".a.json.Ab3dE9",
        "._a.json",
        ".#a.json",
        ".~a.json",
        "json",
    ],
)
def test_a_copy_in_progress_and_a_companion_file_are_not_drops(name: str) -> None:
    assert not is_drop(name)


@given(file_names)
def test_a_tag_can_be_removed_from_any_name_again(name: str) -> None:
    assert untagged(tagged("1_2", name, name_bytes_max=400)) == ("1_2", name)


@given(file_names, st.integers(min_value=60, max_value=255))
def test_a_tagged_name_fits_the_length_and_keeps_its_suffix(name: str, name_bytes_max: int) -> None:
    file = tagged(mint_key(), name, name_bytes_max)
    assert len(os.fsencode(file)) <= name_bytes_max
    assert file.endswith(".json")


def test_a_long_name_is_cut_between_characters() -> None:
    file = tagged("1_2", "漢" * 80 + ".json", 30)
    assert file == "1_2~" + "漢" * 7 + ".json"


@pytest.mark.parametrize("tag", ["", "a/b", "..", "a.b", "a~b", "a" * 65, "a\n"])
def test_a_tag_that_could_leave_the_folder_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="file name"):
        tagged(tag, "a.json")


def test_only_32_hex_digits_and_json_make_a_key() -> None:
    key = mint_key()
    assert key_in(f"{key}.json") == key
    assert key_in(f"{key}.toml") is None
    assert key_in(f"{key.upper()}.json") is None or key.isdigit()
    assert key_in(f"{key}.json\n") is None


@given(file_names)
def test_a_printable_name_is_plain_ascii(name: str) -> None:
    shown = printable(name)
    assert shown.isascii()
    assert shown.isprintable()
