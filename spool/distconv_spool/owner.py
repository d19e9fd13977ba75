"""Claim drops for one daemon and move them on: the daemon's side of the spool.

Every method is one step of docs/spool.md for many drops, so that each step needs only two fsyncs of
folders. A file that cannot be moved is returned as a failure and delays no other file; a file that
has disappeared is ignored. Not thread-safe: one call at a time.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from distconv_spool.disk import Disk, OsDisk
from distconv_spool.errors import SpoolBusy, SpoolUnusable
from distconv_spool.fields import DROP_BYTES_MAX, to_json
from distconv_spool.layout import Layout, make_folder
from distconv_spool.lock import take_lock
from distconv_spool.names import (
    PROBLEM_SUFFIX,
    is_drop,
    is_id,
    key_in,
    mint_key,
    tagged,
    untagged,
)
from distconv_spool.retention import Pruned, prune
from distconv_spool.stability import Observed

SCAN_MAX = 8192
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PART = ".part-"
_LOCK = ".lock"
_CLAIMED_MODE = 0o2700


class Claim(NamedTuple):
    """A drop that is ours."""

    key: str
    """Its idempotency key, the same as long as it is in `claimed/`."""
    name: str
    """The drop's own name, cut if it was very long."""
    observed: Observed
    """Its file when it became stable (a new claim), or now (a leftover)."""

    @property
    def file(self) -> str:
        """Its name in `claimed/<owner>/`."""
        return self.observed.name


class Failure(NamedTuple):
    """A file that could not be processed, and why; it stays where it was."""

    name: str
    error: OSError


class Owner:
    """One daemon's access to a spool.

    Args:
        layout: the spool, checked.
        name: the owner's name, unique for the state of one daemon; see docs/spool.md.
        group: as for `layout.create`.
        disk: another file system, for tests.

    Resource handling: keeps a lock file locked until `close`.

    Error handling: the constructor raises `SpoolBusy` when another process uses this name,
    `SpoolUnusable` for a bad name; every method raises `OSError` when a folder cannot be read or
    fsynced.
    """

    def __init__(
        self, layout: Layout, name: str, *, group: int | None = None, disk: Disk | None = None
    ) -> None:
        if _OWNER.fullmatch(name) is None:
            raise SpoolUnusable(
                f"{name!r} cannot be a spool owner: expected at most 64 characters of "
                "A-Z a-z 0-9 . _ -, beginning with a letter or digit."
            )
        self._layout = layout
        self._disk = disk or OsDisk()
        self._mine = layout.claimed / name
        make_folder(self._mine, _CLAIMED_MODE, group)
        # A drop's name must leave space for the longest suffix that is ever added to it.
        self._name_bytes_max = layout.longest_name_bytes() - len(PROBLEM_SUFFIX)
        self._lock = _lock(self._mine / _LOCK, name)
        try:
            self._remove_parts()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the owner's name for another process."""
        os.close(self._lock)

    def waiting(self) -> list[Observed]:
        """Return the files in `incoming/` that may be drops, at most `SCAN_MAX` of them."""
        names = (name for name in self._disk.scan(self._layout.incoming) if is_drop(name))
        return list(self._see(self._layout.incoming, names, lambda name: name, SCAN_MAX))

    def claim(self, drops: Iterable[Observed]) -> tuple[list[Claim], list[Failure]]:
        """Claim drops for this owner, except those that are gone or that another owner took first.

        The claims are durable when this returns; no key may be used before that.
        """
        claims: list[Claim] = []
        failures: list[Failure] = []
        for observed in drops:
            # Only a plain file keeps the key in its name: a folder of that name would block the
            # next drop with the same key, since a rename cannot replace it.
            key = (key_in(observed.name) if observed.size_bytes else None) or mint_key()
            file = tagged(key, observed.name, self._name_bytes_max)
            if self._move(self._layout.incoming / observed.name, self._mine / file, failures):
                claims.append(_claim(observed._replace(name=file)))
        if claims:
            self._sync(self._mine, self._layout.incoming)
        return claims, failures

    def recover(self, limit: int) -> list[Claim]:
        """Return the claims that were neither accepted nor rejected, for whatever reason."""
        names = (name for name in self._disk.scan(self._mine) if untagged(name))
        found = self._see(self._mine, names, lambda name: _claim_name(name)[1], limit)
        claims = [_claim(observed) for observed in found]
        if claims:
            # The process that claimed them may have been stopped before its fsync.
            self._sync(self._mine, self._layout.incoming)
        return claims

    def read(self, claim: Claim) -> bytes | None:
        """Return a claim's fields as a JSON object; None if it has changed since it was stable.

        Raises:
            BadDrop: it can never be a job.
            OSError: it cannot be read (`FileNotFoundError`: somebody has removed it).
        """
        data, status = self._disk.read(self._mine / claim.file, DROP_BYTES_MAX)
        now = Observed(claim.file, status.st_size, status.st_mtime_ns)
        if not claim.observed.whole and not claim.observed.same_file(now):
            return None
        return to_json(claim.name, data)

    def accept(self, accepted: Iterable[tuple[Claim, str]]) -> list[Failure]:
        """Move claims that have become jobs: pairs of a claim and its job's id."""
        failures: list[Failure] = []
        for claim, job_id in accepted:
            target = self._layout.accepted / tagged(job_id, claim.name, self._name_bytes_max)
            self._move(self._mine / claim.file, target, failures)
        self._sync(self._layout.accepted, self._mine)
        return failures

    def reject(self, rejected: Iterable[tuple[Claim, bytes]]) -> list[Failure]:
        """Move claims that cannot become jobs: pairs of a claim and its problem document."""
        failures: list[Failure] = []
        for claim, problem in rejected:
            target = self._layout.rejected / claim.file
            try:
                # The problem first: a rejected file must never be without an explanation.
                self._publish(target.with_name(claim.file + PROBLEM_SUFFIX), problem)
            except OSError as error:
                failures.append(Failure(claim.file, error))
                continue
            self._move(self._mine / claim.file, target, failures)
        self._sync(self._layout.rejected, self._mine)
        return failures

    def publish_results(self, records: Iterable[tuple[str, bytes]]) -> None:
        """Write the last records of jobs: pairs of a job's id and its record as JSON."""
        for job_id, record in records:
            if not is_id(job_id):
                raise ValueError(f"{job_id!r} cannot be a file name")
            self._publish(self._layout.results / f"{job_id}.json", record)
        self._sync(self._layout.results)

    def prune(self, keep_s: float) -> Pruned:
        """Remove a bounded number of files that ended over `keep_s` ago; see `retention`."""
        now_ns = self._disk.touch(self._mine / _LOCK)
        return prune(self._layout, self._disk, now_ns, keep_s)

    def accepted_jobs(self) -> Iterator[str]:
        """Yield the ids of all jobs in `accepted/`, including those of other owners."""
        for name in self._disk.scan(self._layout.accepted):
            if (parts := untagged(name)) is not None:
                yield parts[0]

    def has_result(self, job_id: str) -> bool:
        """Whether `results/` has the record of a job."""
        try:
            self._disk.lstat(self._layout.results / f"{job_id}.json")
        except FileNotFoundError:
            return False
        return True

    def _see(
        self, folder: Path, names: Iterable[str], drop_name: Callable[[str], str], limit: int
    ) -> Iterator[Observed]:
        for name in names:
            if limit <= 0:
                return
            try:
                status = self._disk.lstat(folder / name)
            except FileNotFoundError:
                continue  # somebody removed it, or another owner took it
            limit -= 1
            plain = stat.S_ISREG(status.st_mode)
            whole = not plain or (status.st_size > 0 and key_in(drop_name(name)) is not None)
            yield Observed(name, status.st_size if plain else 0, status.st_mtime_ns, whole)

    def _move(self, source: Path, target: Path, failures: list[Failure]) -> bool:
        try:
            self._disk.rename(source, target)
        except FileNotFoundError:
            return False
        except OSError as error:
            failures.append(Failure(source.name, error))
            return False
        return True

    def _publish(self, target: Path, data: bytes) -> None:
        """Write a file of ours in one step. Its part is where no submitter can reach it."""
        part = self._mine / f"{_PART}{mint_key()}"
        try:
            self._disk.write_new(part, data)
            self._disk.rename(part, target)
        except OSError:
            self._remove(part)
            raise

    def _sync(self, *folders: Path) -> None:
        for folder in folders:
            self._disk.sync_dir(folder)

    def _remove_parts(self) -> None:
        for name in list(self._disk.scan(self._mine)):
            if name.startswith(_PART):
                self._remove(self._mine / name)

    def _remove(self, part: Path) -> None:
        try:
            self._disk.unlink(part)
        except OSError:
            pass  # nothing reads it, and the next start removes it


def _claim_name(file: str) -> tuple[str, str]:
    parts = untagged(file)
    assert parts is not None
    return parts


def _claim(observed: Observed) -> Claim:
    key, name = _claim_name(observed.name)
    return Claim(key, name, observed)


def _lock(path: Path, owner: str) -> int:
    try:
        return take_lock(path)
    except BlockingIOError:
        raise SpoolBusy(
            f"Another daemon serves this spool as owner {owner!r} (it has locked {path}). "
            "Give each daemon its own owner name."
        ) from None
