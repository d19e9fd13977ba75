"""Record active attempts on disk, so that a start after kill -9 can clean up and report.

An entry is written when an attempt begins and removed after its report is durable. An entry found
at a start was interrupted: its partial files are removed and it is reported as `lost`.
"""

import json
import shutil
from pathlib import Path

import msgspec

from distconv_engine.files import fsync_directory, safe_name, write_durably
from distconv_engine.logs import Log


class JournalEntry(msgspec.Struct, frozen=True):
    """One attempt, and every path where it may leave a partial file."""

    job_id: str
    attempt: int
    folder: str
    """The attempt's own directory."""
    partials: list[str] = []
    """Temporary files outside of it."""


class Journal:
    """The active attempts. Its calls are short and block."""

    def __init__(self, directory: Path, log: Log) -> None:
        self._directory = directory
        self._log = log
        directory.mkdir(parents=True, exist_ok=True)

    def record(self, entry: JournalEntry) -> None:
        """Record an attempt durably; call it again to add a partial file."""
        # The standard library's JSON, because a path may not be UTF-8, which msgspec's rejects.
        content = json.dumps(msgspec.to_builtins(entry)).encode()
        write_durably(self._path(entry.job_id, entry.attempt), content)

    def release(self, job_id: str, attempt: int) -> None:
        """Remove an attempt whose report is durable."""
        self._path(job_id, attempt).unlink(missing_ok=True)
        fsync_directory(self._directory)

    def unfinished(self) -> list[JournalEntry]:
        """Return the attempts that were active when an earlier run was killed."""
        found: list[JournalEntry] = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                found.append(msgspec.convert(json.loads(path.read_bytes()), JournalEntry))
            except (ValueError, msgspec.ValidationError) as error:
                self._log.error("unreadable journal entry removed", path=path, reason=error)
                path.unlink()
        return found

    def _path(self, job_id: str, attempt: int) -> Path:
        return self._directory / f"{safe_name(job_id)}.{attempt}.json"


def remove_partials(entry: JournalEntry) -> None:
    """Remove whatever files the attempt left; files that are already gone are no error."""
    shutil.rmtree(entry.folder, ignore_errors=True)
    for partial in entry.partials:
        Path(partial).unlink(missing_ok=True)
