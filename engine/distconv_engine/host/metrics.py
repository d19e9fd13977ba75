"""Measure the machine: disk space, processor load, temperature."""

import shutil
from pathlib import Path

import psutil

GB = 1e9


def disk_gb(path: Path) -> tuple[float, float]:
    """Return the capacity and the free space of the disk of `path`, in GB."""
    usage = shutil.disk_usage(path)
    return round(usage.total / GB, 3), round(usage.free / GB, 3)


def free_bytes(path: Path) -> int:
    """Return the free space of the disk of `path`."""
    return shutil.disk_usage(path).free


def cpu_percent() -> float:
    """Return the load of all cores since the last call, 0 to 100."""
    return float(psutil.cpu_percent(interval=None))


def temperature_c() -> float | None:
    """Return the temperature of the hottest sensor; None if there is no sensor."""
    read = getattr(psutil, "sensors_temperatures", None)
    if read is None:
        return None
    hottest = [entry.current for entries in read().values() for entry in entries]
    return max(hottest, default=None)
