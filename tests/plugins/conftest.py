"""Fixtures of the plugins' tests."""

import os

import pytest


@pytest.fixture
def no_real_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is durable is in `FaultyDisk`'s books: hundreds of power cuts need not wear the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
