"""The metrics `disk` show free space without ever waiting for a disk."""

import os
import threading
from pathlib import Path

import pytest
import trio
from prometheus_client.core import Metric
from tests.api.test_metrics import scraped

from distconv_plugins.metrics_disk import OLD_S, DiskMetrics, read_disk
from distconvd.testing.daemon import open_daemon

WAIT_S = 10


def values(metrics: DiskMetrics) -> dict[tuple[str, str], float]:
    """Return what a scrape shows now."""
    families: list[Metric] = list(metrics.collect())
    return {(s.name, s.labels["place"]): s.value for f in families for s in f.samples}


def test_a_path_that_does_not_exist_yet_is_on_its_parents_disk(tmp_path: Path) -> None:
    free, size = read_disk(tmp_path / "media" / "of" / "tomorrow")
    here = os.statvfs(tmp_path)
    assert size == here.f_blocks * here.f_frsize
    assert 0 < free <= size


async def test_the_daemon_reports_disk_space_for_state_and_media(tmp_path: Path) -> None:
    state = str(tmp_path / "state.json")
    async with open_daemon(state_file=state, spool_dir=str(tmp_path / "spool")) as daemon:
        with trio.fail_after(WAIT_S):
            while len((found := await scraped(daemon)).labels_of("distconv_disk_size_bytes")) < 3:
                await trio.sleep(0.01)  # the first reading is made in a thread
    here = os.statvfs(tmp_path)
    assert found("distconv_disk_size_bytes", place="state") == here.f_blocks * here.f_frsize
    assert found.labels_of("distconv_disk_free_bytes") == {
        "place=media", "place=spool", "place=state",
    }  # fmt: skip


def test_a_disk_that_hangs_delays_no_scrape_and_starts_no_second_thread() -> None:
    hangs, begun = threading.Event(), []

    def read(path: Path) -> tuple[int, int]:
        begun.append(path)
        hangs.wait(WAIT_S)
        return 1, 2

    metrics = DiskMetrics({"state": Path("/")}, read)
    try:
        assert [values(metrics) for _ in range(5)] == [{}] * 5
        assert len(begun) <= 1
    finally:
        hangs.set()
        metrics.wait(WAIT_S)
    assert values(metrics)["distconv_disk_free_bytes", "state"] == 1
    metrics.wait(WAIT_S)


def test_an_old_reading_is_not_shown() -> None:
    now = [0.0]
    hangs = threading.Event()
    reads = iter([(10, 20)])

    def read(path: Path) -> tuple[int, int]:
        for found in reads:
            return found
        hangs.wait(WAIT_S)
        raise OSError("gone")

    metrics = DiskMetrics({"media": Path("/")}, read, lambda: now[0])
    metrics.wait(WAIT_S)
    now[0] = OLD_S - 1
    assert values(metrics)["distconv_disk_size_bytes", "media"] == 20
    now[0] = OLD_S
    assert values(metrics) == {}
    hangs.set()
    metrics.wait(WAIT_S)


def test_the_metric_of_a_disk_that_is_gone_disappears_and_the_others_stay() -> None:
    gone: list[Path] = []

    def read(path: Path) -> tuple[int, int]:
        if path in gone:
            raise OSError("gone")
        return 10, 20

    metrics = DiskMetrics({"media": Path("/a"), "state": Path("/b")}, read)
    metrics.wait(WAIT_S)
    gone.append(Path("/a"))
    assert len(values(metrics)) == 4
    metrics.wait(WAIT_S)
    assert set(values(metrics)) == {
        ("distconv_disk_free_bytes", "state"), ("distconv_disk_size_bytes", "state"),
    }  # fmt: skip
    metrics.wait(WAIT_S)


@pytest.mark.parametrize("place", ["distconv_disk_free_bytes", "distconv_disk_size_bytes"])
def test_the_metrics_are_gauges(place: str) -> None:
    metrics = DiskMetrics({"state": Path("/")})
    assert {f.name: f.type for f in metrics.collect()}[place] == "gauge"
    metrics.wait(WAIT_S)
