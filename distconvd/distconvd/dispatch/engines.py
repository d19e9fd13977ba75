"""Engines: heartbeats, benchmarks, and what people order them to do."""

from typing import Any

import msgspec

from distconvd.dispatch.matching import EngineEntry
from distconvd.dispatch.records import encode
from distconvd.dispatch.reports import end_attempt, readopt
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
    """Register an engine or hear of it again, renew its leases, and judge what it holds.

    `extra`: fields of it that this version does not know; the caller bounds them.
    Only what differs from its record is written: a heartbeat that tells nothing new costs no disk.
    Raises `Unavailable` for a new engine beyond `engines_max`.
    """
    tx.saw.add(("engines", beat.engine_id))
    entry = tx.state.pool.engines.get(beat.engine_id)
    if entry is None:
        entry = _register(tx, beat)
    else:
        _merge(tx, entry, beat)
    _keep_extra(entry, extra)
    _hear(tx, entry, beat)
    verdicts = _judge_held(tx, entry, beat)
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
    tx.saw.add(("engines", report.engine_id))
    record = tx.state.engine(report.engine_id).record
    asked = record.benchmark_requested_at
    after = tx.edit_engine(
        record,
        benchmark_time=report.benchmark_time,
        benchmarks={**record.benchmarks, **report.benchmarks},
        benchmark_requested_at=None if report.requested_at == asked else asked,
    )
    if after != record:
        tx.tell("engine.changed", engine_id=report.engine_id)
    return f"Benchmark result received from engine {report.engine_id}"


def ask_for_benchmark(tx: Transaction, engine_id: str) -> bytes:
    """Have an engine measure itself anew; return its view. Asking twice is asking once.

    Raises `NotFound`.
    """
    entry = tx.state.engine(engine_id)
    if entry.record.benchmark_requested_at is None:
        tx.edit_engine(entry.record, benchmark_requested_at=tx.now.wall_ms)
        tx.tell("engine.changed", engine_id=engine_id)
    return engine_view(tx, engine_id)


def drain(tx: Transaction, engine_id: str, *, draining: bool) -> bytes:
    """Let an engine finish what it holds and take nothing new, or end that; return its view."""
    entry = tx.state.engine(engine_id)
    changes: dict[str, Any] = {"draining": draining}
    if not draining:
        changes |= {"quarantined_until": None, "failed_jobs": []}
    tx.edit_engine(entry.record, **changes)
    tx.state.settle_engine(engine_id)
    tx.tell("engine.changed", engine_id=engine_id)
    return engine_view(tx, engine_id)


def remove(tx: Transaction, engine_id: str) -> bytes:
    """Forget an engine; what it holds counts as lost. Return its last view."""
    view = engine_view(tx, engine_id)
    for job_id in list(tx.state.engine(engine_id).held):
        lose_attempt(tx, job_id, f"Engine {engine_id} was removed.")
    tx.core.undelivered.pop(engine_id, None)
    tx.tell("engine.removed", engine_id=engine_id)
    tx.put("engines", engine_id, None)
    return view


def lose_attempt(tx: Transaction, job_id: str, message: str) -> None:
    """Write off the running attempt of a job: its engine vanished."""
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
    """Return an engine as on the wire: its record, its state, and what it said last."""
    entry = tx.state.pool.engines.get(engine_id)
    # Its state and its jobs follow from what happened to any job, so a view waits for all of it.
    tx.saw_everything = True
    if entry is None:
        raise NotFound("Engine not found")
    fields: dict[str, Any] = msgspec.to_builtins(entry.record)
    return encode(
        fields
        | {
            "status": entry.state.value,
            "reported_status": entry.record.status,
            "jobs": list(entry.held),
            "reserved": list(entry.reserved),
            "last_seen_at": entry.last_seen_ms,
            "free_gb": entry.free_gb,
            "cpu_percent": entry.cpu_percent,
            "temperature_c": entry.temperature_c,
        }
        | {name: value for name, value in entry.extra.items() if name not in fields}
    )


def _register(tx: Transaction, beat: Heartbeat) -> EngineEntry:
    if len(tx.state.engines) >= tx.settings.engines_max:
        raise Unavailable(
            f"{tx.settings.engines_max} engines are registered, the limit (engines_max);"
            " remove those that are gone with DELETE /engines/{id}.",
            retry_after_s=60,
        )
    record = EngineRecord(beat.engine_id, registered_at=tx.now.wall_ms)
    record = msgspec.structs.replace(record, **_told(beat))
    tx.put("engines", beat.engine_id, encode(record))
    tx.tell("engine.registered", engine_id=beat.engine_id)
    return tx.state.engine(beat.engine_id)


def _merge(tx: Transaction, entry: EngineEntry, beat: Heartbeat) -> None:
    before = entry.record
    tx.edit_engine(before, **_told(beat))
    if entry.record != before:
        tx.tell("engine.changed", engine_id=beat.engine_id)


def _told(beat: Heartbeat) -> dict[str, Any]:
    """Return the durable fields that a heartbeat mentions."""
    told: dict[str, Any] = {}
    for name in EngineRecord.__struct_fields__:
        value = getattr(beat, name, msgspec.UNSET)
        if value is not msgspec.UNSET:
            told[name] = value
    return told


def _hear(tx: Transaction, entry: EngineEntry, beat: Heartbeat) -> None:
    """Take in what is true of the moment only."""
    engine_id = beat.engine_id
    entry.last_seen_s, entry.last_seen_ms = tx.now.mono_s, tx.now.wall_ms
    for name in _MOMENTARY:
        value = getattr(beat, name)
        if value is not msgspec.UNSET:
            setattr(entry, name, value)
    tx.core.timers.add(tx.now.mono_s + tx.settings.engine_timeout_s, "engine", engine_id)
    if entry.offline:
        tx.state.pool.withdraw(engine_id)
        entry.offline = False
        tx.state.settle_engine(engine_id)
        tx.tell("engine.online", engine_id=engine_id)


def _keep_extra(entry: EngineEntry, extra: dict[str, Any]) -> None:
    """Keep fields that are only shown; those not heard of for longest go beyond the bound."""
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


def _judge_held(tx: Transaction, entry: EngineEntry, beat: Heartbeat) -> list[Verdict]:
    """Renew the leases that the heartbeat names and say what to do with each attempt.

    One that names none at all comes from a legacy engine: all that it holds is renewed.
    """
    if isinstance(beat.jobs, list):
        named = beat.jobs
    elif isinstance(beat.local_job_queue, list):
        named = [HeldJob(job_id) for job_id in beat.local_job_queue]
    else:
        for job_id in entry.held:
            tx.core.grant_lease(job_id, tx.now.mono_s)
        return []
    entry.named = frozenset(held.job_id for held in named)
    for job_id in entry.named:
        tx.core.undelivered.get(beat.engine_id, {}).pop(job_id, None)
    _hand_out_again(tx, entry)
    return [_judge(tx, entry, held) for held in named]


def _judge(tx: Transaction, entry: EngineEntry, held: HeldJob) -> Verdict:
    if held.job_id not in tx.state.jobs:
        return Verdict(held.job_id, held.attempt, "unknown")
    job = tx.job(held.job_id)
    engine_id = entry.record.engine_id
    is_current = held.attempt is None or held.attempt == job.attempt
    if is_current and job.status is JobStatus.PENDING:
        job = readopt(tx, job, engine_id) or job
    if not is_current or job.status is not JobStatus.ASSIGNED or job.assigned_engine != engine_id:
        return Verdict(held.job_id, held.attempt, "cancel")
    tx.core.grant_lease(job.job_id, tx.now.mono_s)
    if held.progress is not None:
        tx.state.progress[job.job_id] = held.progress
    return Verdict(held.job_id, held.attempt, "keep", job.paused)


def _hand_out_again(tx: Transaction, entry: EngineEntry) -> None:
    """Find assignments whose reply must have been lost: the engine does not know of them."""
    for job_id in [held for held in entry.held if held not in entry.named]:
        started_at = tx.job(job_id).started_at or 0
        if tx.now.wall_ms - started_at > tx.settings.redeliver_s * 1000:
            tx.core.undelivered.setdefault(entry.record.engine_id, {})[job_id] = None
