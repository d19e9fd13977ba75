"""Archive the ended jobs that left the store: append-only files, searchable by job id.

A job's id begins with the microsecond of its creation, and that is the whole index: jobs created in
the same ten seconds share a file, so a search reads one small file. A line is
`{"job": {...}, "attempts": {...} or null}`; if a job appears twice, the last line counts. Lines are
appended and fsynced; readers skip a torn line that a crash left, since every append begins with a
line break.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import trio

from distconvd.core.ledger import Ledger
from distconvd.disk import Disk
from distconvd.dispatch.matching.queue import created_us
from distconvd.dispatch.records import decode_history
from distconvd.dispatch.retire import Retired, forget, retirable
from distconvd.errors import CommitFailed
from distconvd.model import Attempt, AttemptHistory

log = logging.getLogger("distconvd.archive")

BUCKET_US = 10_000_000
BUCKETS_A_FOLDER = 1000
BATCH_JOBS = 500
PAUSE_S = 2.0
READ_BYTES = 1 << 20
LINE_BYTES_MAX = 1 << 26


class Archived(NamedTuple):
    """A job found in the archive."""

    job: bytes
    attempts: list[Attempt]


class Line(msgspec.Struct, frozen=True):
    """One line of a file: the records as the store had them."""

    job: msgspec.Raw
    attempts: msgspec.Raw


def bucket_of(job_id: str) -> int:
    """Return the number of the file that a job is archived in."""
    return created_us(job_id) // BUCKET_US


class BucketFile(NamedTuple):
    """One file of an archive, to be read line by line."""

    path: Path
    bucket: int

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that are not empty, without their ends; raises `OSError`."""
        with self.path.open("rb") as file:
            while line := file.readline(LINE_BYTES_MAX):
                if line.strip():
                    yield line.rstrip(b"\n")


def bucket_files(directory: Path) -> Iterator[BucketFile]:
    """Yield the files of an archive in the order of their names; nothing if there is no archive."""
    for path in sorted(directory.glob("*/*.ndjson")):
        if path.stem.isdecimal():
            yield BucketFile(path, int(path.stem))


class Archive:
    """The archive in one directory, which is created when the first job is retired."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory = directory.absolute()
        self._disk = disk
        self._thread = trio.CapacityLimiter(1)

    async def append(self, retired: Sequence[Retired]) -> None:
        """Make the jobs durable in the archive; raises `OSError`."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._append, retired, limiter=self._thread)

    async def find(self, job_id: str) -> Archived | None:
        """Return a retired job; raises `OSError`."""
        return await trio.to_thread.run_sync(self._find, job_id, limiter=self._thread)

    def _path(self, job_id: str) -> Path:
        bucket = bucket_of(job_id)
        return self._directory / str(bucket // BUCKETS_A_FOLDER) / f"{bucket}.ndjson"

    def _append(self, retired: Sequence[Retired]) -> None:
        lines: dict[Path, list[bytes]] = {}
        for entry in retired:
            line = b'{"job":' + entry.job + b',"attempts":' + (entry.attempts or b"null") + b"}"
            lines.setdefault(self._path(entry.job_id), []).append(line)
        for path, batch in lines.items():
            self._append_to(path, b"\n" + b"\n".join(batch) + b"\n")

    def _append_to(self, path: Path, data: bytes) -> None:
        is_new = not self._exists(path)
        if is_new:
            self._make_folders(path.parent)
        file = self._disk.open(path, "create" if is_new else "append")
        try:
            while data:
                data = data[file.write(data) :]
            file.fsync()
        finally:
            file.close()
        if is_new:
            self._disk.fsync_dir(path.parent)

    def _exists(self, path: Path) -> bool:
        try:
            self._disk.size(path)
        except FileNotFoundError:
            return False
        return True

    def _make_folders(self, folder: Path) -> None:
        missing: list[Path] = []
        while not self._disk.is_directory(folder):
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            self._disk.mkdir(new)
            self._disk.fsync_dir(new.parent)

    def _find(self, job_id: str) -> Archived | None:
        path = self._path(job_id)
        if not self._exists(path):
            return None
        file = self._disk.open(path, "read")
        try:
            content = b"".join(iter(lambda: file.read(READ_BYTES), b""))
        finally:
            file.close()
        mark = b'"job_id":' + msgspec.json.encode(job_id)
        for line in reversed(content.split(b"\n")):
            if mark in line and (found := _read_line(line, job_id)) is not None:
                return found
        return None


def _read_line(line: bytes, job_id: str) -> Archived | None:
    """Return the job of a whole line; None for a torn one, or one that only mentions the id."""
    try:
        parts = msgspec.json.decode(line, type=Line)
        identity = msgspec.json.decode(parts.job, type=_Id)
        history = bytes(parts.attempts)
        attempts = AttemptHistory(job_id) if history == b"null" else decode_history(job_id, history)
    except msgspec.DecodeError:
        return None
    return Archived(bytes(parts.job), attempts.attempts) if identity.job_id == job_id else None


class _Id(msgspec.Struct, frozen=True):
    job_id: str


async def retire_forever(ledger: Ledger, archive: Archive) -> None:
    """Move ended jobs over the limits to the archive, a bounded batch at a time."""
    while True:
        try:
            retired = await ledger.execute(retirable, BATCH_JOBS)
            if retired:
                await archive.append(retired)
                count = await ledger.execute(forget, retired)
                log.info("jobs moved to the archive: %d", count)
        except (OSError, CommitFailed) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            log.error("the archive cannot be written, so ended jobs stay in the store: %s", reason)
            retired = []
        if len(retired) < BATCH_JOBS:
            await trio.sleep(PAUSE_S)
