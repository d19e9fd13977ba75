"""Test that a job's journal entries are written in order, while the job goes on."""

import threading
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.engine.attempts import make_attempt

from distconv_engine.attempts.journal import JournalEntry
from distconvd.model import Job

JOB = Job("j1", "file:///in.mkv", "h264")


async def test_a_second_entry_waits_for_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attempt, written = make_attempt(JOB, tmp_path), list[list[str]]()
    disk_is_free = threading.Event()

    def record(entry: JournalEntry) -> None:
        if not entry.partials:
            assert disk_is_free.wait(30)
        written.append(entry.partials)

    monkeypatch.setattr(attempt.context.journal, "record", record)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attempt.record)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(attempt.record, tmp_path / "partial")
        await trio.testing.wait_all_tasks_blocked()
        assert written == []
        disk_is_free.set()
    assert written == [[], [str(tmp_path / "partial")]]
