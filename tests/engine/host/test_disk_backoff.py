"""Test that a job that did not fit waits for space, and that the engine pauses after it."""

from pathlib import Path
from typing import Any

import pytest

from distconv_engine.failures import InsufficientSpace
from distconv_engine.host import disk_backoff as space_backoff_module
from distconv_engine.host.disk_backoff import PAUSE_MAX_S, SpaceBackoff
from distconvd.model import Job, TranscodeOptions

MB = 1e6
DISK = Path("/disk")


class Bench:
    """A space backoff with a clock and a disk that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.free = 1000.0, 24 * MB
        monkeypatch.setattr(space_backoff_module, "free_bytes", lambda place: self.free)
        self.space_backoff = SpaceBackoff(30.0, clock=lambda: self.now)

    def pause(self) -> float:
        """Return how long the engine wants no job, in seconds."""
        start = self.now
        while not self.space_backoff.is_over():
            self.now += 1.0
        return self.now - start


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def job(job_id: str, size: float = 0.0, codec: str = "h264", **options: Any) -> Job:
    return Job(job_id, "file:///a", codec, job_size=size, options=TranscodeOptions(**options))


def test_an_engine_that_ran_out_of_disk_space_pauses_longer_each_time(
    bench: Bench,
) -> None:
    assert bench.pause() == 0
    pauses: list[float] = []
    for _ in range(6):
        bench.space_backoff.note_full(job("1"), DISK, bench.free)
        pauses.append(bench.pause())
    assert pauses == [30, 60, 120, 240, PAUSE_MAX_S, PAUSE_MAX_S]
    bench.space_backoff.relieve(job("2"))
    bench.space_backoff.note_full(job("1"), DISK, bench.free)
    assert bench.pause() == 30


def test_space_that_becomes_free_ends_the_pause(bench: Bench) -> None:
    bench.space_backoff.note(job("1"), DISK, 40 * MB)
    assert not bench.space_backoff.is_over()
    bench.free = 40 * MB
    assert bench.space_backoff.is_over()


@pytest.mark.parametrize(
    "other,rejected",
    [
        (job("1"), True),
        (job("2", 500.0, crf=1), True),
        (job("2", 100.0, crf=1), True),
        (job("2", 99.0, crf=1), False),
        (job("2", 500.0), False),
        (job("2", 500.0, "hevc", crf=1), False),
    ],
    ids=["the same", "larger", "as large", "smaller", "other options", "another codec"],
)
def test_the_same_job_and_larger_ones_of_its_kind_do_not_start_before_there_is_disk_space(
    other: Job, rejected: bool, bench: Bench
) -> None:
    bench.space_backoff.note_full(job("1", 100.0, crf=1), DISK, bench.free)
    if rejected:
        with pytest.raises(InsufficientSpace, match="has 24 MB free, which was too little for"):
            bench.space_backoff.check(other)
    bench.free *= 2 if rejected else 1
    bench.space_backoff.check(other)


def test_another_job_of_unknown_size_is_not_blocked(bench: Bench) -> None:
    bench.space_backoff.note_full(job("1"), DISK, bench.free)
    bench.space_backoff.check(job("2"))


def test_a_job_that_did_fit_is_no_longer_blocked(bench: Bench) -> None:
    bench.space_backoff.note_full(job("1"), DISK, bench.free)
    bench.space_backoff.relieve(job("1"))
    bench.space_backoff.check(job("1"))


def test_a_job_without_room_on_a_disk_of_its_own_waits_alone(bench: Bench) -> None:
    bench.space_backoff.note(job("1", 5.0), DISK, 40 * MB, is_shared=False)
    assert bench.space_backoff.is_over()
    with pytest.raises(InsufficientSpace):
        bench.space_backoff.check(job("1", 5.0))
    bench.space_backoff.check(job("2", 5.0))
    bench.free = 40 * MB
    bench.space_backoff.check(job("1", 5.0))
