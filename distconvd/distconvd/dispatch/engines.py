"""Handle heartbeats and benchmarks; drain, resume and remove engines."""

import math
from typing import Any

import msgspec

from distconvd.dispatch.matching import EngineEntry
from distconvd.dispatch.records import encode
from distconvd.dispatch.reports import end_attempt, resume_attempt
from distconvd.dispatch.retries import requeue_or_give_up
from distconvd.dispatch.transaction import Transaction
from distconvd.errors import NotFound, Unavailable
from distconvd.model import (
    AttemptOutcome,
    BenchmarkReport,
    EngineRecord,
    FailureClass,
    Heartbeat,
    HeartbeatReply,
    HeldJob,
    JobStatus,
    Limits,
    Verdict,
)

_MOMENTARY = ("free_gb", "cpu_percent", "temperature_c")


def heartbeat(tx: Transaction, beat: Heartbeat, extra: dict[str, Any]) -> HeartbeatReply:
    """Register an engine or update it, renew its leases, and answer with a verdict on each attempt.

    `extra`: fields that this version does not know; the caller bounds them. Only what differs from
    its record is written: a heartbeat that reports nothing new costs no disk. Raises `Unavailable`
    for a new engine beyond `engines_max`.
    """
    tx.read_set.add(("engines", beat.engine_id))
    entry = tx.state.pool.engines.get(beat.engine_id)
    if entry is None:
        entry = _register(tx, beat)
    else:
        _merge(tx, entry, beat)
    _keep_extra(entry, extra)
    _update_runtime_state(tx, entry, beat)
    verdicts = _active_verdicts(tx, entry, beat)
    asked_at = entry.record.benchmark_requested_at
    return HeartbeatReply(
        f"Heartbeat received from engine {beat.engine_id}",
        verdicts,
        entry.state.value,
        tx.settings.lease_s,
        msgspec.UNSET if asked_at is None else asked_at,
    )


def benchmark(tx: Transaction, report: BenchmarkReport) -> str:
    """Note an engine's benchmark; raises `NotFound` for an unknown engine."""
    tx.read_set.add(("engines", report.engine_id))
    record = tx.state.engine(report.engine_id).record
    asked = record.benchmark_requested_at
    after = tx.edit_engine(
        record,
        benchmark_time=report.benchmark_time,
        benchmarks={**record.benchmarks, **report.benchmarks},
        benchmark_requested_at=None if report.requested_at == asked else asked,
    )
    if after != record:
        tx.emit("engine.changed", engine_id=report.engine_id)
    return f"Benchmark result received from engine {report.engine_id}"


def ask_for_benchmark(tx: Transaction, engine_id: str) -> bytes:
    """Ask an engine to run its benchmark again; return its view. Asking twice is asking once.

    Raises `NotFound`.
    """
    entry = tx.state.engine(engine_id)
    if entry.record.benchmark_requested_at is None:
        tx.edit_engine(entry.record, benchmark_requested_at=tx.now.wall_ms)
        tx.emit("engine.changed", engine_id=engine_id)
    return engine_view(tx, engine_id)


def drain(tx: Transaction, engine_id: str, *, draining: bool) -> bytes:
    """Let an engine finish its jobs and take nothing new, or resume it; return its view."""
    entry = tx.state.engine(engine_id)
    changes: dict[str, Any] = {"draining": draining}
    if not draining:
        changes |= {"quarantined_until": None, "failed_jobs": []}
    tx.edit_engine(entry.record, **changes)
    tx.emit("engine.changed", engine_id=engine_id)
    return engine_view(tx, engine_id)


def remove(tx: Transaction, engine_id: str) -> bytes:
    """Forget an engine; its running attempts count as lost. Return its last view."""
    view = engine_view(tx, engine_id)
    for job_id in list(tx.state.engine(engine_id).assigned):
        lose_attempt(tx, job_id, f"Engine {engine_id} was removed.")
    tx.runtime.forget_engine(engine_id)
    tx.emit("engine.removed", engine_id=engine_id)
    tx.put("engines", engine_id, None)
    return view


def lose_attempt(tx: Transaction, job_id: str, message: str) -> None:
    """End the running attempt of a job as lost: its engine disappeared."""
    job = tx.job(job_id)
    after = requeue_or_give_up(tx, job, FailureClass.LOST, message)
    end_attempt(
        tx,
        job,
        AttemptOutcome.LOST,
        error_class=FailureClass.LOST,
        message=message,
        requeued=after.status is JobStatus.PENDING,
    )


def engine_view(tx: Transaction, engine_id: str) -> bytes:
    """Return an engine as on the wire: its record, its state, and what it last reported."""
    entry = tx.state.pool.engines.get(engine_id)
    # Its state and its jobs follow from what happened to any job, so a view waits for all of it.
    tx.reads_all = True
    if entry is None:
        raise NotFound("Engine not found")
    fields: dict[str, Any] = msgspec.to_builtins(entry.record) | {
        "status": entry.state.value,
        "reported_status": entry.record.status,
        "jobs": list(entry.assigned),
        "reserved": list(entry.reserved),
        "last_seen_at": entry.last_seen_ms,
        "free_gb": entry.free_gb,
        "cpu_percent": entry.cpu_percent,
        "temperature_c": entry.temperature_c,
    }
    # An engine cannot replace what the daemon says of it.
    return encode(fields | {k: v for k, v in entry.extra.items() if k not in fields})


def _register(tx: Transaction, beat: Heartbeat) -> EngineEntry:
    if len(tx.state.engines) >= tx.settings.engines_max:
        raise Unavailable(
            f"The limit of registered engines (engines_max, {tx.settings.engines_max}) is reached;"
            " remove those that are gone with DELETE /engines/{id}.",
            retry_after_s=60,
        )
    record = EngineRecord(beat.engine_id, registered_at=tx.now.wall_ms)
    record = msgspec.structs.replace(record, **_reported_fields(beat))
    tx.put("engines", beat.engine_id, encode(record))
    tx.emit("engine.registered", engine_id=beat.engine_id)
    return tx.state.engine(beat.engine_id)


def _merge(tx: Transaction, entry: EngineEntry, beat: Heartbeat) -> None:
    before = entry.record
    tx.edit_engine(before, **_reported_fields(beat))
    if entry.record != before:
        tx.emit("engine.changed", engine_id=beat.engine_id)


def _reported_fields(beat: Heartbeat) -> dict[str, Any]:
    """Return the durable fields that a heartbeat mentions."""
    reported_fields: dict[str, Any] = {}
    for name in EngineRecord.__struct_fields__:
        value = getattr(beat, name, msgspec.UNSET)
        if value is not msgspec.UNSET:
            reported_fields[name] = value
    return reported_fields


def _update_runtime_state(tx: Transaction, entry: EngineEntry, beat: Heartbeat) -> None:
    """Note what is true only at the moment and never stored."""
    engine_id = beat.engine_id
    entry.last_seen_s, entry.last_seen_ms = tx.now.mono_s, tx.now.wall_ms
    for name in _MOMENTARY:
        value = getattr(beat, name)
        if value is not msgspec.UNSET:
            setattr(entry, name, value)
    tx.runtime.timers.add(tx.now.mono_s + tx.settings.engine_timeout_s, "engine", engine_id)
    if entry.offline:
        with tx.state.pool.changing(engine_id):
            entry.offline = False
            tx.state.refresh_engine(entry)
        tx.emit("engine.online", engine_id=engine_id)


def _keep_extra(entry: EngineEntry, extra: dict[str, Any]) -> None:
    """Keep unknown fields, which are only shown; beyond the bound the least recent ones go."""
    if not extra:
        return
    kept = {name: value for name, value in entry.extra.items() if name not in extra} | extra
    left = Limits.extra_bytes
    entry.extra = {}
    for name, value in reversed(kept.items()):
        left -= len(name) + len(encode(value))
        if left >= 0:
            entry.extra[name] = value
    entry.extra = dict(reversed(entry.extra.items()))


def _active_verdicts(tx: Transaction, entry: EngineEntry, beat: Heartbeat) -> list[Verdict]:
    """Renew the leases that the heartbeat names; return a verdict on each attempt.

    A heartbeat without a list of jobs comes from a legacy engine: all its leases are renewed.
    """
    if isinstance(beat.jobs, list):
        named = beat.jobs
    elif isinstance(beat.local_job_queue, list):
        named = [HeldJob(job_id) for job_id in beat.local_job_queue]
    else:
        for job_id in entry.assigned:
            tx.runtime.grant_lease(job_id)
        return []
    entry.named = frozenset(named_job.job_id for named_job in named)
    for job_id in entry.named:
        tx.runtime.acknowledge(beat.engine_id, job_id)
    _redeliver(tx, entry)
    return [_verdict(tx, entry, named_job) for named_job in named]


def _verdict(tx: Transaction, entry: EngineEntry, named_job: HeldJob) -> Verdict:
    if named_job.job_id not in tx.state.jobs:
        return Verdict(named_job.job_id, named_job.attempt, "unknown")
    job = tx.job(named_job.job_id)
    engine_id = entry.record.engine_id
    is_current = named_job.attempt is None or named_job.attempt == job.attempt
    if is_current and job.status is JobStatus.PENDING:
        job = resume_attempt(tx, job, engine_id) or job
    if not is_current or job.status is not JobStatus.ASSIGNED or job.assigned_engine != engine_id:
        return Verdict(named_job.job_id, named_job.attempt, "cancel")
    tx.runtime.grant_lease(job.job_id)
    if named_job.progress is not None:
        tx.state.progress[job.job_id] = named_job.progress
    return Verdict(named_job.job_id, named_job.attempt, "keep", job.paused)


def _redeliver(tx: Transaction, entry: EngineEntry) -> None:
    """Deliver assignments again that the heartbeat does not name: their reply must be lost."""
    for job_id in [job_id for job_id in entry.assigned if job_id not in entry.named]:
        # Assigned by an earlier run: long ago.
        since_s = tx.runtime.assigned_s.get(job_id, -math.inf)
        if tx.now.mono_s - since_s > tx.settings.redeliver_s:
            tx.runtime.note_unacked(entry.record.engine_id, [job_id])
