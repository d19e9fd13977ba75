"""Room on the disks that this engine writes to, asked before a job is taken and before it is begun.

An output is taken to be no larger than its source, for the encoders' defaults make it smaller. Where
that is wrong the disk gets full in the middle of an encode, and the job goes back as `transient`.
"""

from collections.abc import Sequence
from pathlib import Path

from distconv_engine.config import Config
from distconv_engine.failures import InsufficientSpace
from distconv_engine.host.metrics import free_bytes
from distconv_engine.transfer.destination import FileTarget, Target, directory_of

MB = 1e6


def has_disk_space(config: Config) -> bool:
    """Whether every disk that each job needs has more than the reserve.

    One without a byte left has no room, also where the reserve is 0.
    """
    return all(free_bytes(place) > _reserve(config) for place in _directories(config))


def require_disk_space(config: Config, *needs: tuple[Path, float]) -> None:
    """Raise `TransientFault` when what a job needs may not fit beside the reserve.

    Args:
        config: with the reserve.
        needs: directories, and how many bytes will come into each; those on one disk are added up.
    """
    needed_by_disk: dict[int, tuple[Path, float]] = {}
    for place, size in needs:
        there = _existing(place)
        disk = there.stat().st_dev
        needed_by_disk[disk] = (there, needed_by_disk.get(disk, (there, 0.0))[1] + size)
    for place, size in needed_by_disk.values():
        free, needed = free_bytes(place), size + _reserve(config)
        if free < needed:
            raise InsufficientSpace(
                f"The disk of {place} has {free / MB:.0f} MB free, this job needs "
                f"{needed / MB:.0f} MB (with {config.disk_reserve_mb:g} MB in reserve).",
                place=place,
                needed=needed,
            )


def require_space_for_output(config: Config, target: Target, size: float) -> None:
    """Raise `TransientFault` when an output of `size` bytes, made in the work directory, may not fit
    there, or not in its place where that is on another disk."""
    needs: list[tuple[Path, float]] = [(config.work_dir, size)]
    if isinstance(target, FileTarget) and not _are_on_one_disk(target.directory, config.work_dir):
        needs.append((target.directory, size))
    require_disk_space(config, *needs)


def _are_on_one_disk(one: Path, other: Path) -> bool:
    return _existing(one).stat().st_dev == _existing(other).stat().st_dev


def _reserve(config: Config) -> float:
    return config.disk_reserve_mb * MB


def _directories(config: Config) -> Sequence[Path]:
    is_directory = config.output and not config.output.startswith(("http://", "https://"))
    output = [directory_of(config.output)] if config.output and is_directory else []
    return [_existing(place) for place in (config.work_dir, *output)]


def _existing(place: Path) -> Path:
    """Return `place`, or the first folder above it that is there already."""
    while not place.exists() and place != place.parent:
        place = place.parent
    return place
