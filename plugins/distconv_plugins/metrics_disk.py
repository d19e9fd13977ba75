"""Measure the disks that may fill up: those of the state, the media store and the spool.

A file system that hangs (a network disk whose server is gone) must not stop the daemon, and asking
for its free space would hang, too. So a scrape shows the last reading and starts the next one in a
thread: at most one, however long it takes. An old reading is left out, since it may be wrong.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from distconvd import hookimpl
from distconvd.hookspecs import MetricsFactory, PluginContext, Registrar

NAME = "disk"
OLD_S = 300.0
"""A reading of this age is no longer shown."""


class Reading(NamedTuple):
    """One measurement of a disk."""

    at_s: float
    free_bytes: int
    """What the daemon's user may still write."""
    size_bytes: int


class DiskMetrics(Collector):
    """The collector.

    Args:
        paths: folders or files by the name that is shown; they need not exist yet.
        read: returns the free bytes and the size of a path's disk.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        read: Callable[[Path], tuple[int, int]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = paths
        self._read = read_disk if read is None else read
        self._clock = clock
        self._readings: dict[str, Reading] = {}
        self._thread = threading.Thread()
        self._begin()

    def collect(self) -> Iterator[Metric]:
        """Yield the last readings, and start the next."""
        free = GaugeMetricFamily(
            "distconv_disk_free_bytes",
            "Free bytes on the disk of the state, the media store or the spool.",
            labels=["place"],
        )
        size = GaugeMetricFamily(
            "distconv_disk_size_bytes",
            "Size in bytes of the disk of the state, the media store or the spool.",
            labels=["place"],
        )
        for place, reading in sorted(self._readings.items()):
            if self._clock() - reading.at_s < OLD_S:
                free.add_metric([place], reading.free_bytes)
                size.add_metric([place], reading.size_bytes)
        yield free
        yield size
        if not self._thread.is_alive():
            self._begin()

    def wait(self, timeout_s: float) -> None:
        """Wait until the current reading has ended."""
        self._thread.join(timeout_s)

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._read_all, name="disk metrics", daemon=True)
        self._thread.start()

    def _read_all(self) -> None:
        for place, path in self._paths.items():
            try:
                free_bytes, size_bytes = self._read(path)
            except OSError:
                self._readings.pop(place, None)  # an unreadable disk shows as a missing metric
                continue
            reading = Reading(self._clock(), free_bytes, size_bytes)
            self._readings = {**self._readings, place: reading}


def read_disk(path: Path) -> tuple[int, int]:
    """Return the free bytes and the size of the disk that `path` is on, or will be.

    Raises `OSError` if the disk does not answer.
    """
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    usage = os.statvfs(place)
    return usage.f_bavail * usage.f_frsize, usage.f_blocks * usage.f_frsize


def _make(context: PluginContext) -> DiskMetrics:
    paths = {"state": context.state_file, "media": context.media_dir}
    if context.spool_dir is not None:
        paths["spool"] = context.spool_dir
    return DiskMetrics(paths)


@hookimpl
def distconvd_register_metrics(registrar: Registrar[MetricsFactory]) -> None:
    """Register the metrics."""
    registrar.add(NAME, _make)
