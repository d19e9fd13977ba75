"""A file is stable when it has stayed the same for long enough, by the observer's clock."""

from hypothesis import given
from hypothesis import strategies as st

from distconv_spool import Observed, StabilityTracker


def names(stable: list[Observed]) -> list[str]:
    return [seen.name for seen in stable]


def test_a_file_is_stable_after_it_was_the_same_for_the_settle_time() -> None:
    settler, file = StabilityTracker(3.0), Observed("a", 10, 1)
    assert settler.observe(100.0, [file]) == []
    assert settler.observe(102.9, [file]) == []
    assert settler.observe(103.0, [file]) == [file]


def test_a_file_that_grows_or_is_touched_starts_over() -> None:
    settler = StabilityTracker(3.0)
    settler.observe(0.0, [Observed("a", 10, 1)])
    assert settler.observe(3.0, [Observed("a", 11, 1)]) == []
    assert settler.observe(6.0, [Observed("a", 11, 2)]) == []
    assert names(settler.observe(9.0, [Observed("a", 11, 2)])) == ["a"]


def test_an_empty_file_is_never_stable() -> None:
    settler = StabilityTracker(0.0)
    assert settler.observe(0.0, [Observed("a", 0, 1)]) == []
    assert settler.observe(1e9, [Observed("a", 0, 1)]) == []


def test_a_whole_file_needs_no_time() -> None:
    assert names(StabilityTracker(3.0).observe(0.0, [Observed("a", 10, 1, whole=True)])) == ["a"]


def test_a_file_that_went_and_came_back_starts_over() -> None:
    settler, file = StabilityTracker(3.0), Observed("a", 10, 1)
    settler.observe(0.0, [file])
    settler.observe(1.0, [])
    assert settler.observe(3.0, [file]) == []


def test_the_oldest_file_comes_first() -> None:
    files = [Observed("c", 1, 3), Observed("b", 1, 1), Observed("a", 1, 3)]
    assert names(StabilityTracker(0.0).observe(0.0, files)) == ["b", "a", "c"]


@given(st.integers(), st.integers(min_value=1))
def test_the_time_in_a_file_is_never_compared_with_the_clock(mtime_ns: int, size: int) -> None:
    settler, file = StabilityTracker(3.0), Observed("a", size, mtime_ns)
    assert settler.observe(0.0, [file]) == []
    assert settler.observe(3.0, [file]) == [file]
