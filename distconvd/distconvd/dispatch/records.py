"""Encode and decode records: the only place that encodes what is stored and sent.

Also normalizes what the original (v1.0.0) wrote: jobs of nine fields, and engines as its heartbeats
described them.
"""

import logging
import math
from typing import Any, NamedTuple

import msgspec

from distconvd.dispatch.matching.queue import created_us
from distconvd.model import AttemptHistory, EngineRecord, Job, JobStatus

log = logging.getLogger("distconvd.records")

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are not a valid record."""

_encoder = msgspec.json.Encoder()
_job_decoder = msgspec.json.Decoder(Job)
_engine_decoder = msgspec.json.Decoder(EngineRecord)
_history_decoder = msgspec.json.Decoder(AttemptHistory)


def encode(record: Any) -> bytes:
    """Return a record as compact JSON."""
    return _encoder.encode(record)


def decode_job(data: bytes) -> Job:
    """Return the job of a stored record."""
    return _job_decoder.decode(data)


def decode_engine(data: bytes) -> EngineRecord:
    """Return the engine of a stored record."""
    return _engine_decoder.decode(data)


def decode_history(job_id: str, data: bytes) -> AttemptHistory:
    """Return the attempt history of a stored record; empty where it cannot be read, since a job
    must be able to go on without its past."""
    try:
        return _history_decoder.decode(data)
    except UNREADABLE:
        log.error(
            "the attempt history of a job cannot be read and is dropped", extra={"job_id": job_id}
        )
        return AttemptHistory(job_id)


class NormalizedJob(NamedTuple):
    """A job, and its record in our format."""

    job: Job
    record: bytes
    is_repaired: bool = False
    """Whether a field could not be read, so that the record says less than the original."""


def normalize_job(job_id: str, data: bytes) -> NormalizedJob | None:
    """Return a job of any origin and its record in our format; None if it cannot be read.

    A record of ours is returned unchanged; one of the original's gets our fields with defaults.
    """
    try:
        job = decode_job(data)
    except UNREADABLE:
        repaired = _repair_job(job_id, data)
        return (
            None
            if repaired is None
            else NormalizedJob(repaired, encode(repaired), is_repaired=True)
        )
    if job.job_id == job_id and job.created_at:
        return NormalizedJob(job, data)
    created_ms = created_us(job_id) // 1000
    stamp = job.created_at or created_ms
    job = msgspec.structs.replace(
        job, job_id=job_id, created_at=stamp, updated_at=job.updated_at or stamp
    )
    return NormalizedJob(job, encode(job))


def _repair_job(job_id: str, data: bytes) -> Job | None:
    """Build a job from the readable fields of a foreign record.

    A job with an unreadable status may be done already: it ends as failed, so that a person looks.
    """
    try:
        fields = msgspec.json.decode(data, type=dict[str, Any])
    except UNREADABLE:
        return None
    kept: dict[str, Any] = {"job_id": job_id}
    for name in Job.__struct_fields__:
        if name in fields and name != "job_id":
            try:
                trial = {"job_id": job_id, "source_url": "", "target_codec": "", name: fields[name]}
                msgspec.convert(trial, Job)
            except msgspec.ValidationError:
                log.warning(
                    "dropped field %r, its value cannot be read: %.100r",
                    name, fields[name], extra={"job_id": job_id},
                )  # fmt: skip
            else:
                kept[name] = fields[name]
    if not {"source_url", "target_codec"} <= kept.keys():
        return None
    created_ms = created_us(job_id) // 1000
    kept.setdefault("created_at", created_ms)
    kept.setdefault("updated_at", created_ms)
    if "status" not in kept:
        kept["status"] = JobStatus.FAILED_PERMANENTLY
        kept["finished_at"] = kept["updated_at"]
        kept["error_message"] = (
            f"The job's status could not be read from the store: {fields.get('status')!r:.100}."
            " It may be done already: check its output, or start it again."
        )
    return msgspec.convert(kept, Job)


def normalize_engine(engine_id: str, data: bytes) -> tuple[EngineRecord, bytes] | None:
    """Return an engine of any origin and its record in our format; None if it cannot be read."""
    try:
        record = decode_engine(data)
    except UNREADABLE:
        repaired = _repair_engine(engine_id, data)
        return None if repaired is None else (repaired, encode(repaired))
    if record.engine_id == engine_id:
        return record, data
    record = msgspec.structs.replace(record, engine_id=engine_id)
    return record, encode(record)


def _repair_engine(engine_id: str, data: bytes) -> EngineRecord | None:
    """Build an engine from the readable fields of a foreign record."""
    try:
        fields = msgspec.json.decode(data, type=dict[str, Any])
    except UNREADABLE:
        return None
    record = EngineRecord(engine_id)
    for name in EngineRecord.__struct_fields__:
        if name in fields and name != "engine_id":
            record = _with_field(record, name, fields[name])
    return record


def _with_field(record: EngineRecord, name: str, value: Any) -> EngineRecord:
    """Return the record with one foreign field set, or unchanged if the value cannot be read."""
    try:
        return msgspec.convert({**msgspec.to_builtins(record), name: value}, EngineRecord)
    except msgspec.ValidationError:
        log.warning(
            "dropped field %r, its value cannot be read",
            name,
            extra={"engine_id": record.engine_id},
        )
        return record


def is_finite(number: float) -> bool:
    """Whether a number is neither NaN nor infinite (JSON has neither; 1e999 becomes infinite)."""
    return math.isfinite(number)
