"""Expire what is due: leases, delays, reservations, quarantines and silent engines."""

from collections.abc import Callable

from distconvd.dispatch.engines import lose_attempt
from distconvd.dispatch.matching import requirements_of
from distconvd.dispatch.timers import TimerKind
from distconvd.dispatch.transaction import Transaction
from distconvd.model import JobStatus

CLOCK_STEP_S = 1.0
"""A change of the offset between the clocks that makes us look at all delays again."""
EXPIRED_MAX = 2_000
"""Reminders handled in one call, so that requests get their turn in between."""


def expire_due(tx: Transaction) -> float | None:
    """Expire what is due, up to a bound; return when to call again (monotonic s), or None."""
    _handle_clock_step(tx)
    for kind, key in tx.runtime.timers.due(tx.now.mono_s, EXPIRED_MAX):
        _HANDLERS[kind](tx, key)
    return tx.runtime.timers.next_s()


def extend_leases(tx: Transaction, suspended_s: float) -> None:
    """Extend leases and engine timeouts by the time (s) for which the daemon itself was suspended,
    as by SIGSTOP: it could not receive any sign of life then."""
    for job_id in tx.runtime.leases:
        # The reminder comes too early then, and its handler adds another.
        tx.runtime.leases[job_id] += suspended_s
    for entry in tx.state.pool.engines.values():
        entry.last_seen_s += suspended_s


def _handle_clock_step(tx: Transaction) -> None:
    """Follow a step of the wall clock with what depends on it.

    A moment that a person or a policy chose comes earlier where the clock was set forward; where it was
    set back, the present reminders come too early and their handlers add others. What is a duration
    stays as long as it is, and its record states the new end.
    """
    offset_s = tx.now.wall_ms / 1000 - tx.now.mono_s
    if abs(offset_s - tx.runtime.clock_offset_s) < CLOCK_STEP_S:
        return
    tx.runtime.clock_offset_s = offset_s
    _shift_backoffs(tx)
    _shift_quarantines(tx)
    for job_id in tx.state.hold_reasons:
        _hold_ended(tx, job_id)


def _shift_backoffs(tx: Transaction) -> None:
    """State when backoffs end; beyond a bound the records stay as they are, and only look wrong."""
    shifted = 0
    for job in [tx.state.job(job_id) for job_id in tx.state.delayed]:
        end_s = tx.runtime.delay_end_s(job)
        tx.runtime.timers.add(end_s, "delay", job.job_id)
        if shifted < EXPIRED_MAX and tx.runtime.is_backing_off(job):
            shifted += 1
            tx.edit_job(job, not_before=_wall_ms(tx, end_s))


def _shift_quarantines(tx: Transaction) -> None:
    for engine_id, entry in list(tx.state.pool.engines.items()):
        until_ms = entry.record.quarantined_until
        if until_ms is not None:
            end_s = tx.runtime.quarantine_end_s(engine_id, until_ms)
            record = tx.edit_engine(entry.record, quarantined_until=_wall_ms(tx, end_s))
            tx.runtime.watch_quarantine(engine_id, record.quarantined_until)


def _wall_ms(tx: Transaction, at_s: float) -> int:
    """Return what the wall clock will show at a monotonic time."""
    return tx.now.wall_ms + round(max(0.0, at_s - tx.now.mono_s) * 1000)


def _lease(tx: Transaction, job_id: str) -> None:
    until_s = tx.runtime.leases.get(job_id)
    if until_s is None:
        return
    if until_s > tx.now.mono_s:
        tx.runtime.timers.add(until_s, "lease", job_id)
        return
    job = tx.state.job(job_id)
    if job.status is not JobStatus.ASSIGNED:
        tx.runtime.end_lease(job_id)
        return
    tx.runtime.leases_expired += 1
    lose_attempt(
        tx,
        job_id,
        f"Engine {job.assigned_engine} did not renew the lease of attempt {job.attempt}"
        f" within {tx.settings.lease_s:.0f} s.",
    )


def _engine(tx: Transaction, engine_id: str) -> None:
    entry = tx.state.pool.engines.get(engine_id)
    if entry is None or entry.offline:
        return
    silent_from_s = entry.last_seen_s + tx.settings.engine_timeout_s
    if silent_from_s > tx.now.mono_s:
        tx.runtime.timers.add(silent_from_s, "engine", engine_id)
        return
    with tx.state.pool.changing(engine_id):
        entry.offline = True
        tx.state.refresh_engine(entry)
    tx.emit("engine.offline", engine_id=engine_id)


def _reservation(tx: Transaction, job_id: str) -> None:
    """Requeue a job that its engine did not collect; nothing is reserved for it until it asks."""
    engine_id = tx.state.reservations.get(job_id)
    if engine_id is None:
        return
    entry = tx.state.pool.engines[engine_id]
    until_s = entry.reserved[job_id]
    if until_s > tx.now.mono_s:
        # The reminder was for an earlier reservation of the same job.
        tx.runtime.timers.add(until_s, "reservation", job_id)
        return
    with tx.state.pool.changing(engine_id):
        entry.reservation_expired = True
        tx.state.refresh_engine(entry)


def _delay(tx: Transaction, job_id: str) -> None:
    if job_id not in tx.state.delayed:
        return
    job = tx.state.job(job_id)
    if tx.runtime.is_delayed(job):
        tx.runtime.timers.add(tx.runtime.delay_end_s(job), "delay", job_id)
        return
    tx.state.delayed.discard(job_id)
    tx.state.queue.add(job)


def _retry_anywhere(tx: Transaction, job_id: str) -> None:
    """Offer a retry to any engine: it has waited long enough for one that has not failed it."""
    if job_id in tx.state.queue:
        tx.state.queue.dirty[requirements_of(tx.state.job(job_id))] = None


def _hold_ended(tx: Transaction, job_id: str) -> None:
    """Ask the policy again about a job that it held until now."""
    if job_id in tx.state.queue:
        tx.state.queue.dirty[requirements_of(tx.state.job(job_id))] = None


def _quarantine(tx: Transaction, engine_id: str) -> None:
    entry = tx.state.pool.engines.get(engine_id)
    if entry is None or entry.record.quarantined_until is None:
        return
    end_s = tx.runtime.quarantine_end_s(engine_id, entry.record.quarantined_until)
    if tx.runtime.left_s(end_s):
        tx.runtime.timers.add(end_s, "quarantine", engine_id)
        return
    tx.edit_engine(entry.record, quarantined_until=None)
    tx.emit("engine.changed", engine_id=engine_id)


_HANDLERS: dict[TimerKind, Callable[[Transaction, str], None]] = {
    "lease": _lease,
    "engine": _engine,
    "reservation": _reservation,
    "delay": _delay,
    "excluded": _retry_anywhere,
    "hold": _hold_ended,
    "quarantine": _quarantine,
}
