"""Audit the archive: every line is complete, in the right file, and of a job that has ended.

A line that a crash cut short is legal if its job is found in another place: archived again afterwards, or
still in the store. It is also legal that a job is archived twice, or is in the store as well.
"""

import re
from collections.abc import Container, Iterator

import msgspec

from distconvd.commands.audit.finding import Finding
from distconvd.commands.audit.invariants import job_findings
from distconvd.core.archive import BucketFile, Line, bucket_of
from distconvd.dispatch.matching.queue import created_us
from distconvd.dispatch.records import UNREADABLE
from distconvd.model import TERMINAL_STATUSES, AttemptHistory, Job

_BEGINNING = b'{"job":'
_ID = re.compile(rb'^\{"job":\{"job_id":"([^"\\]+)"')

_line = msgspec.json.Decoder(Line)
_job = msgspec.json.Decoder(Job)
_history = msgspec.json.Decoder(AttemptHistory | None)


class ArchiveAudit:
    """Checks the archive against its rules, file by file.

    Args:
        stored: ids of the jobs in the store.
        floor_us: no new id is made of a time up to this (µs).
    """

    def __init__(self, stored: Container[str], floor_us: int) -> None:
        self._stored = stored
        self._floor_us = floor_us
        self.ids: set[str] = set()
        """Jobs of the file that was read last."""
        self.jobs = 0
        """Jobs in all files so far; one that is archived twice counts once."""

    def findings(self, file: BucketFile) -> Iterator[Finding]:
        """Yield all that is wrong with one file."""
        self.ids = set()
        broken: list[bytes] = []
        for line in file.lines():
            entry = _entry(line)
            if entry is None:
                broken.append(line)
            else:
                self.ids.add(entry[0].job_id)
                yield from self._entry(file, *entry)
        self.jobs += len(self.ids)
        for line in broken:
            yield from self._broken(file, line)

    def _entry(
        self, file: BucketFile, job: Job, history: AttemptHistory | None
    ) -> Iterator[Finding]:
        subject = f"job {job.job_id}"
        if bucket_of(job.job_id) != file.bucket:
            right = f"{bucket_of(job.job_id)}.ndjson"
            detail = f"it is archived in {file.bucket}.ndjson, but belongs in {right}"
            yield Finding("archive-misplaced", subject, detail)
        if job.status not in TERMINAL_STATUSES:
            yield Finding("archive-open", subject, f"it is archived, but is still {job.status}")
        if created_us(job.job_id) > self._floor_us:
            detail = "it is archived, but a new job could get its id"
            yield Finding("archive-floor", subject, detail)
        for finding in job_findings(job, history or AttemptHistory(job.job_id)):
            yield finding._replace(is_archived=True)

    def _broken(self, file: BucketFile, line: bytes) -> Iterator[Finding]:
        found = _ID.match(line)
        job_id = found[1].decode(errors="replace") if found else None
        if job_id is None and _BEGINNING.startswith(line[: len(_BEGINNING)]):
            return  # cut before its id: it was never acknowledged, so the store still has the job
        if job_id is not None and (job_id in self.ids or job_id in self._stored):
            return
        detail = f"it is archived in {file.bucket}.ndjson, but the line cannot be read"
        yield (
            Finding("archive-garbage", f"job {job_id}", detail)
            if job_id
            else Finding(
                "archive-garbage",
                f"archive {file.bucket}",
                f"a line cannot be read: {line[:60]!r}",
            )
        )


def _entry(line: bytes) -> tuple[Job, AttemptHistory | None] | None:
    try:
        parts = _line.decode(line)
        return _job.decode(parts.job), _history.decode(parts.attempts)
    except UNREADABLE:
        return None
