"""Check the free disk space before a job is taken and before it is started.

An output is assumed to be no larger than its source, because the encoders' defaults make it
smaller. Where that is wrong, the encode is ended before it touches the reserve, and the job fails as
`transient`.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from distconv_engine.config import Config
from distconv_engine.failures import InsufficientSpace
from distconv_engine.host.metrics import free_bytes
from distconv_engine.tasks import open_tasks
from distconv_engine.transfer.destination import FileTarget, Target, directory_of

MB = 1e6
WATCH_S = 1.0
"""How often `keep_reserve` looks."""


def has_disk_space(config: Config) -> bool:
    """Whether every disk that each job needs has more than the reserve.

    A disk without a free byte has no space, even if the reserve is 0.
    """
    return all(free_bytes(place) > _reserve(config) for place in _directories(config))


def require_disk_space(config: Config, *needs: tuple[Path, float]) -> None:
    """Raise `InsufficientSpace` if a job's needs may not fit in addition to the reserve.

    Args:
        config: with the reserve.
        needs: directories and the bytes that each will receive; added up for each disk.
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
                f"The disk of {place} has {free / MB:.0f} MB free, but this job needs "
                f"{needed / MB:.0f} MB (with {config.disk_reserve_mb:g} MB in reserve).",
                place=place,
                needed=needed,
            )


def is_shared_disk(config: Config, place: Path) -> bool:
    """Whether `place` is on a disk that every job needs: the work directory's, or that of `output`."""
    return any(_are_on_one_disk(place, own) for own in _directories(config))


@asynccontextmanager
async def keep_reserve(config: Config, *directories: Path) -> AsyncGenerator[None]:
    """Cancel the block and raise `InsufficientSpace` as soon as a disk has less than the reserve.

    An output may become larger than its source, and a disk has others who fill it.
    """
    short: list[Path] = []
    before = {place: free_bytes(_existing(place)) for place in directories}
    async with open_tasks() as tasks:
        with trio.CancelScope() as scope:

            async def watch() -> None:
                while not short:
                    await trio.sleep(WATCH_S)
                    short.extend(
                        p for p in directories if free_bytes(_existing(p)) < _reserve(config)
                    )
                scope.cancel()

            tasks.start(watch)
            yield
        tasks.cancel()
    if scope.cancelled_caught:
        raise InsufficientSpace(
            f"The disk is full but for its reserve of {config.disk_reserve_mb:g} MB: there was too little"
            f" room at {_existing(short[0])} for the output.",
            place=_existing(short[0]),
            needed=before[short[0]] * 1.01 + MB,
        )


def require_space_for_output(config: Config, target: Target, size: float) -> None:
    """Raise `InsufficientSpace` if an output of `size` bytes may not fit in the work directory, or
    not in its place, if that is on another disk."""
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
    """Return `place`, or the nearest folder above it that exists."""
    while not place.exists() and place != place.parent:
        place = place.parent
    return place
