"""Find out what became of a drop: the submitter's side. Only reads, and needs no daemon.

A drop only moves forward, so the folders are searched in the order in which it moves: a drop that
leaves a folder after we searched it is found in a later one. Submitters cannot read `claimed/`, so
a drop that is nowhere else is assumed to be there.
"""

import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from distconv_spool.disk import Disk, OsDisk
from distconv_spool.errors import BadDrop
from distconv_spool.layout import Layout, check
from distconv_spool.names import PROBLEM_SUFFIX, is_id, untagged
from distconv_spool.submit import Drop

_RECORD_BYTES_MAX = 4_194_304
_POLL_S_MIN, _POLL_S_MAX = 0.1, 2.0


class State(IntEnum):
    """The state of a drop; a greater value is later."""

    WAITING = 1
    CLAIMED = 2
    ACCEPTED = 3
    REJECTED = 4
    FINISHED = 5


class Outcome(NamedTuple):
    """What is known about a drop."""

    state: State
    job_id: str | None = None
    """From `ACCEPTED` on."""
    problem: dict[str, Any] | None = None
    """The reason, if `REJECTED`: a problem document (RFC 9457)."""
    record: dict[str, Any] | None = None
    """The job's last record, if `FINISHED`."""


def look(root: Path | str, drop: Drop, *, disk: Disk | None = None) -> Outcome:
    """Return what has become of a drop by now.

    Raises:
        SpoolUnusable: the folder is not a spool.
        OSError: a folder cannot be read.
    """
    return _look(check(root), disk or OsDisk(), drop)


def wait(
    root: Path | str,
    drop: Drop,
    *,
    timeout_s: float,
    until: State = State.FINISHED,
    disk: Disk | None = None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Wait until the drop has reached a state or is rejected, or time is up; return what is known.

    Args:
        timeout_s: how long at most; 0 looks once.
        until: the state to wait for, or a later one.
        disk: another file system, for tests; so are `clock` (seconds) and `pause`.

    Raises:
        As `look`.
    """
    layout, disk = check(root), disk or OsDisk()
    deadline, poll_s = clock() + timeout_s, _POLL_S_MIN
    while True:
        outcome = _look(layout, disk, drop)
        left_s = deadline - clock()
        if outcome.state >= until or outcome.state is State.REJECTED or left_s <= 0:
            return outcome
        pause(min(poll_s, left_s))
        poll_s = min(poll_s * 1.5, _POLL_S_MAX)


def read_result(
    root: Path | str, job_id: str, *, disk: Disk | None = None
) -> dict[str, Any] | None:
    """Return the last record of a job that came through the spool; None if it has not ended."""
    return _result(check(root), disk or OsDisk(), job_id)


def _look(layout: Layout, disk: Disk, drop: Drop) -> Outcome:
    if _exists(disk, layout.incoming / drop.name):
        return Outcome(State.WAITING)
    if found := _find(disk, layout.accepted, drop.name):
        job_id, _ = found
        record = _result(layout, disk, job_id)
        return Outcome(State.ACCEPTED if record is None else State.FINISHED, job_id, record=record)
    if found := _find(disk, layout.rejected, drop.name):
        problem = _document(disk, layout.rejected / f"{found[1]}{PROBLEM_SUFFIX}")
        return Outcome(State.REJECTED, problem=problem)
    return Outcome(State.CLAIMED)


def _find(disk: Disk, folder: Path, name: str) -> tuple[str, str] | None:
    """Return the tag and full name of the file whose name was `name` before it was tagged."""
    for candidate in disk.scan(folder):
        parts = untagged(candidate)
        if parts is not None and parts[1] == name:
            return parts[0], candidate
    return None


def _result(layout: Layout, disk: Disk, job_id: str) -> dict[str, Any] | None:
    if not is_id(job_id):
        raise ValueError(f"{job_id!r} cannot be a job's id")
    return _document(disk, layout.results / f"{job_id}.json")


def _document(disk: Disk, path: Path) -> dict[str, Any] | None:
    try:
        data, _ = disk.read(path, _RECORD_BYTES_MAX)
        return msgspec.json.decode(data, type=dict[str, Any])
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise BadDrop(f"{path} is damaged: {error}.") from None


def _exists(disk: Disk, path: Path) -> bool:
    try:
        disk.lstat(path)
    except FileNotFoundError:
        return False
    return True
