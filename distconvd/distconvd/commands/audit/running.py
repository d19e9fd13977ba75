"""Audit a running daemon by its replies over HTTP.

The daemon shows only its records and what it derives from them, so keys, the archive and damage on disk
are left to the audit of a store. In return this audit can check the indexes: the jobs assigned to and
reserved for each engine, against the jobs' own records.

State changes during the audit. So a job is read before and after its attempts, until both reads agree;
and what looks wrong is checked again after a pause, and reported only if it is still wrong. Ended jobs are
many and do not change, so the attempts of only a bounded number of them are checked.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol
from urllib.parse import quote

import msgspec

from distconvd.commands.audit.finding import Finding
from distconvd.commands.audit.invariants import job_findings
from distconvd.commands.counts import count
from distconvd.dispatch.settings import HISTORY_MAX
from distconvd.model import (
    TERMINAL_STATUSES,
    Attempt,
    AttemptHistory,
    AttemptOutcome,
    EngineRecord,
    Job,
    JobStatus,
)

PAGE_JOBS = 1000
ENDED_ASKED_MAX = 20_000
PAUSE_S = 0.5
CHECKS_MAX = 3
"""How often something must look wrong, with pauses between, to be reported."""
READS_MAX = 5


class _Engine(EngineRecord, frozen=True):
    jobs: list[str] = []
    reserved: list[str] = []


_jobs = msgspec.json.Decoder(list[Job])
_job = msgspec.json.Decoder(Job)
_attempts = msgspec.json.Decoder(list[Attempt])
_engine = msgspec.json.Decoder(_Engine)
_engines = msgspec.json.Decoder(list[_Engine])


class Daemon(Protocol):
    """The daemon as the audit asks it."""

    def get(self, path: str) -> tuple[bytes, str | None]:
        """Return a reply's body and its `X-Next-Cursor`; raises `LookupError` for a 404."""
        ...


class RunningAudit:
    """Checks a daemon's replies against the invariants.

    Args:
        daemon: answers requests; what it raises, except `LookupError`, propagates.
        sleep: waits for the given seconds.
    """

    def __init__(self, daemon: Daemon, sleep: Callable[[float], None] = time.sleep) -> None:
        self._daemon = daemon
        self._sleep = sleep
        self.jobs = 0
        self.engines = 0
        self.ended_asked = 0
        self.ended_not_asked = 0

    def findings(self) -> Iterator[Finding]:
        """Yield all that is wrong."""
        engines = _engines.decode(self._daemon.get("/engines/")[0])
        self.engines = len(engines)
        yield from self._confirmed((e.engine_id for e in engines), self._check_engine)
        cursor: str | None = ""
        last = ""
        while cursor is not None:
            path = f"/jobs/?limit={PAGE_JOBS}" + (f"&cursor={quote(cursor)}" if cursor else "")
            body, following = self._daemon.get(path)
            page = _jobs.decode(body)
            yield from self._listed(page, last)
            last = page[-1].job_id if page else last
            cursor = following if following != cursor else None

    def _listed(self, page: list[Job], last: str) -> Iterator[Finding]:
        """Check one page of the listing, which began after the job `last`."""
        for job in page:
            if job.job_id <= last:
                yield Finding("listed-twice", f"job {job.job_id}", "it is listed twice")
            last = job.job_id
        self.jobs += len(page)
        yield from self._confirmed(
            filter(None, map(self._is_worth_checking, page)), self._check_job
        )

    def _is_worth_checking(self, job: Job) -> str | None:
        if job.status not in TERMINAL_STATUSES or any(job_findings(job, None)):
            return job.job_id
        if self.ended_asked >= ENDED_ASKED_MAX:
            self.ended_not_asked += 1
            return None
        self.ended_asked += 1
        return job.job_id

    def _confirmed(
        self, subjects: Iterable[str], check: Callable[[str], list[Finding]]
    ) -> Iterator[Finding]:
        """Yield what is wrong with the subjects in every one of several checks."""
        suspects = {subject: found for subject in subjects if (found := check(subject))}
        for _ in range(CHECKS_MAX - 1):
            if not suspects:
                return
            self._sleep(PAUSE_S)
            again = {subject: check(subject) for subject in suspects}
            suspects = {
                s: both for s, found in suspects.items() if (both := _both(found, again[s]))
            }
        for found in suspects.values():
            yield from found

    def _check_job(self, job_id: str) -> list[Finding]:
        read = self._read(job_id)
        if read is None:
            return []  # it was archived, or changes all the time
        job, attempts = read
        ended = [a for a in attempts if a.outcome is not AttemptOutcome.RUNNING]
        history = AttemptHistory(job_id, ended, int(len(ended) >= HISTORY_MAX))
        return [*job_findings(job, history), *self._check_assigned_engine(job)]

    def _read(self, job_id: str) -> tuple[Job, list[Attempt]] | None:
        """Return a job and its attempts as of one moment; None if it is gone or keeps changing."""
        path = f"/jobs/{quote(job_id, safe='')}"
        try:
            job = _job.decode(self._daemon.get(path)[0])
            for _ in range(READS_MAX):
                attempts = _attempts.decode(self._daemon.get(f"{path}/attempts")[0])
                before, job = job, _job.decode(self._daemon.get(path)[0])
                if msgspec.structs.replace(before, progress=job.progress) == job:
                    return job, attempts
        except LookupError:
            pass
        return None

    def _check_assigned_engine(self, job: Job) -> Iterator[Finding]:
        if job.status is not JobStatus.ASSIGNED or not job.assigned_engine:
            return
        subject, engine_id = f"job {job.job_id}", job.assigned_engine
        engine = self._engine(engine_id)
        if engine is None:
            detail = f"it is assigned to {engine_id!r}, which is not registered"
            yield Finding("unknown-engine", subject, detail)
        elif job.job_id not in engine.jobs:
            detail = f"it is assigned to {engine_id!r}, which does not list it"
            yield Finding("held-apart", subject, detail)

    def _check_engine(self, engine_id: str) -> list[Finding]:
        engine = self._engine(engine_id)
        if engine is None:
            return []  # it was removed meanwhile
        found: list[Finding] = []
        if len(engine.jobs) > engine.slots:
            detail = f"it has {count(len(engine.jobs), 'jobs')} and {count(engine.slots, 'slots')}"
            found.append(Finding("over-slots", f"engine {engine_id}", detail))
        for job_id in engine.jobs:
            found += self._check_assigned(engine_id, job_id)
        for job_id in engine.reserved:
            found += self._check_reserved(engine_id, job_id)
        return found

    def _check_assigned(self, engine_id: str, job_id: str) -> Iterator[Finding]:
        job = self._job(job_id)
        if job is None or (job.status, job.assigned_engine) != (JobStatus.ASSIGNED, engine_id):
            detail = f"engine {engine_id!r} lists it as assigned, but it is {_where(job)}"
            yield Finding("held-apart", f"job {job_id}", detail)

    def _check_reserved(self, engine_id: str, job_id: str) -> Iterator[Finding]:
        job = self._job(job_id)
        if job is None or job.status is not JobStatus.PENDING:
            detail = f"it is reserved for engine {engine_id!r}, but it is {_where(job)}"
            yield Finding("reserved-apart", f"job {job_id}", detail)

    def _engine(self, engine_id: str) -> _Engine | None:
        try:
            return _engine.decode(self._daemon.get(f"/engines/{quote(engine_id, safe='')}")[0])
        except LookupError:
            return None

    def _job(self, job_id: str) -> Job | None:
        try:
            return _job.decode(self._daemon.get(f"/jobs/{quote(job_id, safe='')}")[0])
        except LookupError:
            return None


def _where(job: Job | None) -> str:
    if job is None:
        return "missing"
    at = f" to {job.assigned_engine!r}" if job.status is JobStatus.ASSIGNED else ""
    return f"{job.status}{at}"


def _both(first: list[Finding], second: list[Finding]) -> list[Finding]:
    """Return the second findings that the first have, too, perhaps with another detail."""
    before = {(finding.kind, finding.subject) for finding in first}
    return [finding for finding in second if (finding.kind, finding.subject) in before]
