"""What has lain in a spool for long enough goes: a result with its drop, a rejection with its drop.

Only what has ended goes, and only by the age of what the daemon itself wrote, the result or the problem: a
drop's own time is its writer's, and may be years old on its first day. An accepted drop without a result
stays, however old it is. Ages are told by the clock that stamps the files, so that a server and its
clients (NFS) need not agree on the time.

The drop goes first and durably, then what tells of it: a crash in between leaves a result or a problem
whose drop is gone, and the next time finishes that. The other way round a restart would find a drop
without its result, and write the result again.
"""

import errno
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from distconv_spool.disk import Disk
from distconv_spool.layout import Layout
from distconv_spool.names import PROBLEM_SUFFIX, untagged

OLD_MAX = 4096
"""Results, and rejections, that are handled at a time."""
_RESULT_SUFFIX = ".json"


class Pruned(NamedTuple):
    """What one round did."""

    results: int
    """How many results went, with their drops."""
    rejections: int
    """How many problems went, with theirs."""
    failures: list[OSError]
    """Why others did not; they stay, and are tried again."""


def prune(layout: Layout, disk: Disk, now_ns: int, keep_s: float) -> Pruned:
    """Remove what ended over `keep_s` ago, at most `OLD_MAX` of each sort.

    Args:
        layout: the spool.
        disk: the file system.
        now_ns: the present, by the clock that stamps files.
        keep_s: how long an end is kept.

    Raises `OSError` when a folder cannot be read or made durable.
    """
    failures: list[OSError] = []
    limit_ns = now_ns - int(keep_s * 1e9)
    results = _prune_results(layout, disk, limit_ns, failures)
    rejections = _prune_rejections(layout.rejected, disk, limit_ns, failures)
    return Pruned(results, rejections, failures)


def _prune_results(layout: Layout, disk: Disk, limit_ns: int, failures: list[OSError]) -> int:
    names = (n for n in disk.scan(layout.results) if n.endswith(_RESULT_SUFFIX))
    old = {
        name.removesuffix(_RESULT_SUFFIX)
        for name in islice(_older(disk, layout.results, names, limit_ns), OLD_MAX)
    }
    if not old:
        return 0
    for name in disk.scan(layout.accepted):
        parts = untagged(name)
        if parts is None or parts[0] not in old:
            continue
        if not _remove(disk, layout.accepted / name, failures):
            old.discard(parts[0])
    disk.sync_dir(layout.accepted)
    gone = [_remove(disk, layout.results / f"{each}{_RESULT_SUFFIX}", failures) for each in old]
    disk.sync_dir(layout.results)
    return sum(gone)


def _prune_rejections(folder: Path, disk: Disk, limit_ns: int, failures: list[OSError]) -> int:
    names = (n for n in disk.scan(folder) if n.endswith(PROBLEM_SUFFIX))
    # A drop may be called like a problem; then it has one of its own.
    problems = (n for n in names if not _is_there(disk, folder / f"{n}{PROBLEM_SUFFIX}"))
    old = list(islice(_older(disk, folder, problems, limit_ns), OLD_MAX))
    if not old:
        return 0
    orphans = [
        name for name in old if _remove(disk, folder / name.removesuffix(PROBLEM_SUFFIX), failures)
    ]
    disk.sync_dir(folder)
    gone = [_remove(disk, folder / name, failures) for name in orphans]
    disk.sync_dir(folder)
    return sum(gone)


def _older(disk: Disk, folder: Path, names: Iterator[str], limit_ns: int) -> Iterator[str]:
    for name in names:
        try:
            is_old = disk.lstat(folder / name).st_mtime_ns < limit_ns
        except FileNotFoundError:
            continue  # another daemon was quicker
        if is_old:
            yield name


def _is_there(disk: Disk, path: Path) -> bool:
    try:
        disk.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _remove(disk: Disk, path: Path, failures: list[OSError]) -> bool:
    """Remove a file; return whether it is gone. A folder that was dropped stays: it is not ours to
    say what is in it."""
    try:
        disk.unlink(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            failures.append(error)
        return False
    return True
