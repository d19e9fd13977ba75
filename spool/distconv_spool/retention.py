"""Remove old results and rejections from a spool, each with its drop.

Only what has ended is removed, and only by the age of the file that the daemon itself wrote, the
result or the problem: a drop's own time is set by its writer, and may be years old on its first
day. An accepted drop without a result stays, however old it is. Ages are measured by the clock that
stamps the files, so that a server and its clients (NFS) need not agree on the time.

The drop is removed first, durably, then its result or problem: after a crash in between, the next
round removes the result or problem that is left. In the opposite order a restart would find a drop
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
"""The most results, and the most rejections, that one round removes."""
_RESULT_SUFFIX = ".json"


class Pruned(NamedTuple):
    """The outcome of one round."""

    results: int
    """How many results were removed, with their drops."""
    rejections: int
    """How many problems were removed, with their drops."""
    failures: list[OSError]
    """Errors of files that could not be removed; the next round tries them again."""


def prune(layout: Layout, disk: Disk, now_ns: int, keep_s: float) -> Pruned:
    """Remove what ended over `keep_s` ago, at most `OLD_MAX` results and as many rejections.

    Args:
        layout: the spool.
        disk: the file system.
        now_ns: the present, by the clock that stamps files.
        keep_s: how long results and rejections are kept.

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
    # A drop may be named like a problem; then it has a problem of its own.
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
            continue  # another daemon has removed it
        if is_old:
            yield name


def _is_there(disk: Disk, path: Path) -> bool:
    try:
        disk.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _remove(disk: Disk, path: Path, failures: list[OSError]) -> bool:
    """Remove a file; return whether it is gone. A dropped folder stays: its content is not ours."""
    try:
        disk.unlink(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            failures.append(error)
        return False
    return True
