"""What happens because time passed: leases expire, delays end, engines fall silent."""

from collections.abc import Callable

from distconvd.dispatch.engines import lose_attempt
from distconvd.dispatch.matching import requirements_of
from distconvd.dispatch.timers import TimerKind
from distconvd.dispatch.transaction import Transaction
from distconvd.model import JobStatus

CLOCK_STEP_S = 1.0
"""A difference between the clocks that is worth looking at all delays again."""
EXPIRED_MAX = 2_000
"""Reminders that one tick handles, so that requests get their turn in between."""


def expire_due(tx: Transaction) -> float | None:
    """Do what is due, within a bound; return when to call again (monotonic seconds), or None."""
    _mind_clock_steps(tx)
    for kind, key in tx.runtime.timers.due(tx.now.mono_s, EXPIRED_MAX):
        _HANDLERS[kind](tx, key)
    return tx.runtime.timers.next_s()


def extend_leases(tx: Transaction, suspended_s: float) -> None:
    """Let leases and engines live longer by the time (s) that the daemon itself stood still, as when
    it was stopped by a signal: nobody could be heard then."""
    for job_id in tx.runtime.leases:
        tx.runtime.leases[job_id] += (
            suspended_s  # its reminder comes too early and asks for another
        )
    for entry in tx.state.pool.engines.values():
        entry.last_seen_s += suspended_s


def _mind_clock_steps(tx: Transaction) -> None:
    """Where the wall clock was set forward, what waits for a time of day is due earlier; where it
    was set back, the reminder comes too early and asks for another."""
    offset_s = tx.now.wall_ms / 1000 - tx.now.mono_s
    if abs(offset_s - tx.runtime.clock_offset_s) < CLOCK_STEP_S:
        return
    tx.runtime.clock_offset_s = offset_s
    for job_id in tx.state.delayed:
        tx.runtime.watch_delay(tx.state.job(job_id))
    for engine_id, entry in tx.state.pool.engines.items():
        if entry.record.quarantined_until is not None:
            until_s = tx.runtime.wall_to_mono_s(entry.record.quarantined_until)
            tx.runtime.timers.add(until_s, "quarantine", engine_id)


def _lease(tx: Transaction, job_id: str) -> None:
    until_s = tx.runtime.leases.get(job_id)
    if until_s is None:
        return
    if until_s > tx.now.mono_s:
        tx.runtime.timers.add(until_s, "lease", job_id)
        return
    job = tx.state.job(job_id)
    if job.status is not JobStatus.ASSIGNED:
        del tx.runtime.leases[job_id]
        return
    tx.runtime.leases_expired += 1
    lose_attempt(
        tx,
        job_id,
        f"Engine {job.assigned_engine} was not heard of for {tx.settings.lease_s:.0f} s"
        f" (lease of attempt {job.attempt}).",
    )


def _engine(tx: Transaction, engine_id: str) -> None:
    entry = tx.state.pool.engines.get(engine_id)
    if entry is None or entry.offline:
        return
    silent_from_s = entry.last_seen_s + tx.settings.engine_timeout_s
    if silent_from_s > tx.now.mono_s:
        tx.runtime.timers.add(silent_from_s, "engine", engine_id)
        return
    tx.state.pool.unindex_engine(engine_id)
    entry.offline = True
    tx.state.refresh_engine(engine_id)
    tx.emit("engine.offline", engine_id=engine_id)


def _reservation(tx: Transaction, job_id: str) -> None:
    """A reservation was not collected: the job goes elsewhere, the engine waits until it asks."""
    engine_id = tx.state.reservations.get(job_id)
    if engine_id is None:
        return
    entry = tx.state.pool.engines[engine_id]
    until_s = entry.reserved[job_id]
    if until_s > tx.now.mono_s:
        # The reminder was for an earlier reservation of the same job.
        tx.runtime.timers.add(until_s, "reservation", job_id)
        return
    tx.state.pool.unindex_engine(engine_id)
    entry.reservation_expired = True
    tx.state.refresh_engine(engine_id)


def _delay(tx: Transaction, job_id: str) -> None:
    if job_id not in tx.state.delayed:
        return
    job = tx.state.job(job_id)
    if job.not_before is not None and job.not_before > tx.now.wall_ms:
        tx.runtime.timers.add(tx.runtime.wall_to_mono_s(job.not_before), "delay", job_id)
        return
    tx.state.delayed.discard(job_id)
    tx.state.queue.add(job)


def _retry_anywhere(tx: Transaction, job_id: str) -> None:
    """A retry has waited long enough for an engine that has not failed it: any will do."""
    if job_id in tx.state.queue:
        tx.state.queue.dirty[requirements_of(tx.state.job(job_id))] = None


def _hold_ended(tx: Transaction, job_id: str) -> None:
    """The policy held a job until now: it is asked again."""
    if job_id in tx.state.queue:
        tx.state.queue.dirty[requirements_of(tx.state.job(job_id))] = None


def _quarantine(tx: Transaction, engine_id: str) -> None:
    entry = tx.state.pool.engines.get(engine_id)
    if entry is None or entry.record.quarantined_until is None:
        return
    if entry.record.quarantined_until > tx.now.wall_ms:
        until_s = tx.runtime.wall_to_mono_s(entry.record.quarantined_until)
        tx.runtime.timers.add(until_s, "quarantine", engine_id)
        return
    tx.edit_engine(entry.record, quarantined_until=None)
    tx.state.refresh_engine(engine_id)
    tx.emit("engine.changed", engine_id=engine_id)


_HANDLERS: dict[TimerKind, Callable[[Transaction, str], None]] = {
    "lease": _lease,
    "engine": _engine,
    "reservation": _reservation,
    "delay": _delay,
    "elsewhere": _retry_anywhere,
    "held": _hold_ended,
    "quarantine": _quarantine,
}
