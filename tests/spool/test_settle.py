"""A file has settled when it has stayed the same for long enough, by the observer's clock."""

from hypothesis import given
from hypothesis import strategies as st

from distconv_spool import Seen, Settler


def names(settled: list[Seen]) -> list[str]:
    return [seen.name for seen in settled]


def test_a_file_settles_after_it_was_the_same_for_the_settle_time() -> None:
    settler, file = Settler(3.0), Seen("a", 10, 1)
    assert settler.observe(100.0, [file]) == []
    assert settler.observe(102.9, [file]) == []
    assert settler.observe(103.0, [file]) == [file]


def test_a_file_that_grows_or_is_touched_starts_anew() -> None:
    settler = Settler(3.0)
    settler.observe(0.0, [Seen("a", 10, 1)])
    assert settler.observe(3.0, [Seen("a", 11, 1)]) == []
    assert settler.observe(6.0, [Seen("a", 11, 2)]) == []
    assert names(settler.observe(9.0, [Seen("a", 11, 2)])) == ["a"]


def test_an_empty_file_never_settles() -> None:
    settler = Settler(0.0)
    assert settler.observe(0.0, [Seen("a", 0, 1)]) == []
    assert settler.observe(1e9, [Seen("a", 0, 1)]) == []


def test_a_whole_file_needs_no_time() -> None:
    assert names(Settler(3.0).observe(0.0, [Seen("a", 10, 1, whole=True)])) == ["a"]


def test_a_file_that_went_and_came_back_starts_anew() -> None:
    settler, file = Settler(3.0), Seen("a", 10, 1)
    settler.observe(0.0, [file])
    settler.observe(1.0, [])
    assert settler.observe(3.0, [file]) == []


def test_the_oldest_file_comes_first() -> None:
    files = [Seen("c", 1, 3), Seen("b", 1, 1), Seen("a", 1, 3)]
    assert names(Settler(0.0).observe(0.0, files)) == ["b", "a", "c"]


@given(st.integers(), st.integers(min_value=1))
def test_the_time_in_a_file_is_never_compared_with_the_clock(mtime_ns: int, size: int) -> None:
    settler, file = Settler(3.0), Seen("a", size, mtime_ns)
    assert settler.observe(0.0, [file]) == []
    assert settler.observe(3.0, [file]) == [file]
