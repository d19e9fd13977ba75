"""Check that an engine is in the pool's indexes as it is, whatever changed it."""

import pytest
from tests.core.kit import Core, check_invariants

from distconvd.dispatch.matching import EngineEntry, EnginePool
from distconvd.dispatch.matching.requirements import Requirements

H264 = Requirements("h264", frozenset())


def pool_with_one_engine() -> tuple[EnginePool, EngineEntry]:
    """Return a pool that knows one available engine and one requirement."""
    core = Core()
    core.engine("E1")
    pool = core.dispatcher.state.pool
    pool.index(H264)
    return pool, pool.engines["E1"]


def test_an_engine_is_in_no_index_while_it_is_changed_and_in_the_right_ones_afterwards() -> None:
    pool, entry = pool_with_one_engine()
    with pool.changing("E1") as changed:
        assert changed is entry
        assert not pool.is_available("E1")
        assert not pool.index(H264).members
        entry.benchmarks = {"h264": 3.0}
    assert pool.index(H264).ranked == [(3.0, "E1")]
    with pool.changing("E1"):
        entry.offline = True
    assert not pool.is_available("E1")


def test_a_change_within_a_change_of_the_same_engine_does_not_index_it_too_early() -> None:
    pool, entry = pool_with_one_engine()
    with pool.changing("E1"):
        with pool.changing("E1"):
            entry.benchmarks = {"h264": 3.0}
        assert not pool.index(H264).members
        entry.benchmarks = {"h264": 4.0}
    assert pool.index(H264).ranked == [(4.0, "E1")]


def test_an_engine_whose_change_raises_is_indexed_as_it_was_left() -> None:
    pool, entry = pool_with_one_engine()

    def wait_and_raise() -> None:
        with pool.changing("E1"):
            entry.long_polls = 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        wait_and_raise()
    assert (pool.long_polls, list(pool.index(H264).long_polls)) == (1, ["E1"])


def test_an_engine_that_is_not_registered_can_be_added_and_removed_in_a_change() -> None:
    core = Core()
    pool = core.dispatcher.state.pool
    with pool.changing("E1") as nobody:
        assert nobody is None
    core.engine("E1")
    assert pool.is_available("E1")
    core.remove("E1")
    assert not pool.is_available("E1")
    check_invariants(core.dispatcher)
