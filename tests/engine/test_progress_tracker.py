"""Test that the tracker knows how long each stage took."""

from collections.abc import Iterator

import pytest

from distconv_engine.attempts.progress_tracker import Tracker


def test_the_time_of_each_stage_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Iterator[float] = iter([100.0, 101.0, 103.5, 104.0, 110.0])
    name = "distconv_engine.attempts.progress_tracker.monotonic"
    monkeypatch.setattr(name, lambda: next(clock))
    tracker = Tracker()
    for stage in ("probe", "encode", "probe"):
        tracker.phase(stage)
    assert tracker.spent_s() == {"preflight": 1.0, "probe": 8.5, "encode": 0.5}
