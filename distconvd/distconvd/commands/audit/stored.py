"""Audit the contents of a store and of its archive.

One record is decoded at a time, so beyond the snapshot itself the audit needs memory only for the
engines' counts of assigned jobs and for idempotency keys whose jobs have been retired; findings are
yielded as they are found, first of the tables in order, then of the archive, file by file.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from distconvd.commands.audit.archived import ArchiveAudit
from distconvd.commands.audit.finding import Finding
from distconvd.commands.audit.invariants import job_findings
from distconvd.commands.counts import count
from distconvd.core.archive import BucketFile
from distconvd.dispatch.matching.queue import created_us
from distconvd.dispatch.records import UNREADABLE, decode_engine, decode_job, normalize_job
from distconvd.dispatch.retire import FLOOR_KEY, Floor
from distconvd.dispatch.submit import IDEMPOTENCY_PREFIX, Remembered
from distconvd.model import AttemptHistory, EngineRecord, Job, JobStatus
from distconvd.store import Damage, RecordName, Snapshot, Table

T = TypeVar("T")

_history = msgspec.json.Decoder(AttemptHistory)
_remembered = msgspec.json.Decoder(Remembered)
_floor = msgspec.json.Decoder(Floor)


class StoredAudit:
    """Checks a snapshot against the invariants.

    Args:
        snapshot: the contents of the store.
        damage: what the store reported as damaged while it opened.
        reported: all damage that nobody has acknowledged, also by earlier starts.
    """

    def __init__(
        self, snapshot: Snapshot, damage: list[str], reported: Sequence[Damage] = ()
    ) -> None:
        self._snapshot = snapshot
        self._damage = damage
        self._reported = reported
        self._slots: dict[str, int] = {}
        self._assigned: dict[str, int] = {}
        self._floor_us = 0
        self._wanted: dict[str, str] = {}
        """Jobs that must be in the archive, since they are not in the store, to their idempotency key."""
        self.archived = 0

    def findings(self, archive: Iterator[BucketFile]) -> Iterator[Finding]:
        """Yield all that is wrong.

        Args:
            archive: the archive's files.
        """
        for message in self._damage:
            yield Finding("store", "store", f"a start would report: {message}")
        yield from self.damage()
        yield from self._engines()
        yield from self._jobs()
        yield from self._over_slots()
        yield from self._orphans()
        yield from self._meta()
        audit = ArchiveAudit(self._snapshot.jobs, self._floor_us)
        for file in archive:
            yield from audit.findings(file)
            for job_id in audit.ids:
                self._wanted.pop(job_id, None)
        self.archived = audit.jobs
        yield from self._lost_keys()

    def damage(self) -> Iterator[Finding]:
        """Yield the damage of earlier starts, and once each record of which a change is lost."""
        for damage in self._reported:
            if not any(damage.text.startswith(message) for message in self._damage):
                yield Finding("damage", "store", damage.text)
        names = (name for damage in self._reported for name in damage.touched)
        for subject, is_there in {_subject(name): self._has(name) for name in names}.items():
            state = "it may be older than what was acknowledged" if is_there else "it is missing"
            yield Finding("damage-touched", subject, f"a change was lost by damage; {state}")

    def _has(self, name: RecordName) -> bool:
        table = "jobs" if name.table == "attempts" else name.table
        return name.key in getattr(self._snapshot, table)

    def _engines(self) -> Iterator[Finding]:
        for key, record in self._snapshot.engines.items():
            engine = _decoded(decode_engine, record)
            subject = f"engine {key}"
            if engine is None:
                yield Finding("engine-unreadable", subject, "its record cannot be read")
                continue
            yield from self._engine(key, engine)

    def _engine(self, key: str, engine: EngineRecord) -> Iterator[Finding]:
        self._slots[key] = engine.slots
        if engine.engine_id != key:
            detail = f"its record says that it is {engine.engine_id!r}"
            yield Finding("engine-misfiled", f"engine {key}", detail)

    def _jobs(self) -> Iterator[Finding]:
        for key, record in self._snapshot.jobs.items():
            self._floor_us = max(self._floor_us, created_us(key))
            job = _decoded(decode_job, record)
            if job is None:
                yield self._unreadable(key, record)
                continue
            if job.job_id != key:
                detail = f"its record says that it is {job.job_id!r}"
                yield Finding("job-misfiled", f"job {key}", detail)
                job = msgspec.structs.replace(job, job_id=key)
            yield from self._check_assigned_engine(job)
            yield from self._job(job)

    def _unreadable(self, key: str, record: bytes) -> Finding:
        if normalize_job(key, record) is None:
            return Finding("job-unreadable", f"job {key}", "its record cannot be read")
        return Finding("job-repaired", f"job {key}", "fields of its record cannot be read")

    def _check_assigned_engine(self, job: Job) -> Iterator[Finding]:
        engine_id = job.assigned_engine
        if job.status is not JobStatus.ASSIGNED or not engine_id:
            return
        self._assigned[engine_id] = self._assigned.get(engine_id, 0) + 1
        if engine_id not in self._snapshot.engines:
            detail = f"it is assigned to {engine_id!r}, which is not registered"
            yield Finding("unknown-engine", f"job {job.job_id}", detail)

    def _job(self, job: Job) -> Iterator[Finding]:
        record = self._snapshot.attempts.get(job.job_id)
        history = (
            AttemptHistory(job.job_id) if record is None else _decoded(_history.decode, record)
        )
        subject = f"job {job.job_id}"
        if history is None:
            yield Finding("attempts-unreadable", subject, "its attempts cannot be read")
        elif history.job_id != job.job_id:
            detail = f"its attempts are recorded as those of job {history.job_id!r}"
            yield Finding("attempts-misfiled", subject, detail)
            history = None
        yield from job_findings(job, history)

    def _over_slots(self) -> Iterator[Finding]:
        for engine_id, assigned in self._assigned.items():
            slots = self._slots.get(engine_id, assigned)
            if assigned > slots:
                detail = f"it has {count(assigned, 'jobs')} and {count(slots, 'slots')}"
                yield Finding("over-slots", f"engine {engine_id}", detail)

    def _orphans(self) -> Iterator[Finding]:
        for key in self._snapshot.attempts:
            if key not in self._snapshot.jobs:
                yield Finding("attempts-orphaned", f"job {key}", "it has attempts but no record")

    def _meta(self) -> Iterator[Finding]:
        for key, record in self._snapshot.meta.items():
            if key.startswith(IDEMPOTENCY_PREFIX):
                yield from self._key(key, record)
            elif key == FLOOR_KEY:
                floor = _decoded(_floor.decode, record)
                if floor is None:
                    yield Finding("floor-unreadable", f"meta {key}", "it cannot be read")
                else:
                    self._floor_us = max(self._floor_us, floor.us)

    def _key(self, key: str, record: bytes) -> Iterator[Finding]:
        known = _decoded(_remembered.decode, record)
        if known is None:
            yield Finding("meta-unreadable", f"meta {key}", "it cannot be read")
        elif known.job_id not in self._snapshot.jobs:
            self._wanted[known.job_id] = key

    def _lost_keys(self) -> Iterator[Finding]:
        for job_id, key in self._wanted.items():
            detail = f"{key} created it, but it is neither in the store nor in the archive"
            yield Finding("key-to-nowhere", f"job {job_id}", detail)


def _subject(name: RecordName) -> str:
    kinds: dict[Table, str] = {
        "jobs": "job",
        "attempts": "job",
        "engines": "engine",
        "meta": "meta",
    }
    return f"{kinds[name.table]} {name.key}"


def _decoded(decode: Callable[[bytes], T], record: bytes) -> T | None:
    """Return a decoded record; None if it cannot be read."""
    try:
        return decode(record)
    except UNREADABLE:
        return None
