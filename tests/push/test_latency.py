"""Test, on real sockets and a real disk, how soon after its commit an assignment is pushed."""

from pathlib import Path

import pytest
from bench.push import push_latency
from bench.table import SHORT

PATIENCE_MS = 250.0
"""Far above the goal, because a test machine may be busy. `make bench` checks the goal itself."""


@pytest.mark.e2e
@pytest.mark.alone
def test_an_assignment_is_pushed_soon_after_its_commit(tmp_path: Path) -> None:
    submitted, freed = push_latency(tmp_path / "push", SHORT)
    assert submitted.value < PATIENCE_MS
    assert freed.value < PATIENCE_MS
