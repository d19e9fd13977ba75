"""Test how two servers take turns, and what is made of their rates."""

from functools import partial

import pytest
from bench.load import Result
from bench.turns import Rates, take_turns


def test_who_goes_first_alternates() -> None:
    order: list[str] = []

    def load(name: str) -> Result:
        order.append(name)
        return Result(requests=10, seconds=2.0)

    rates = take_turns(partial(load, "a"), partial(load, "b"), 3)
    assert "".join(order) == "baabba"
    assert rates.subject == rates.base == [5.0, 5.0, 5.0]


def test_the_row_is_the_median_of_the_ratios_of_each_turn() -> None:
    rates = Rates(subject=[90.0, 30.0, 110.0], base=[100.0, 10.0, 100.0])
    row = rates.row("jobs", 0.5, requests_each=3)
    assert row.value == pytest.approx(1.1)
    assert row.note == "30/s against 33/s; ±0.52 in 3 turns"


def test_the_spread_is_half_the_distance_of_the_quartiles() -> None:
    rates = Rates(subject=[1.0, 2.0, 3.0, 4.0, 5.0], base=[1.0] * 5)
    assert rates.spread == pytest.approx(1.0)
