"""What a connected engine means to the dispatcher: it is parked, and assignments await delivery.

Commands like those of `distconvd.dispatch`: no I/O, no clock.
"""

from distconvd.dispatch.assign import add_waiter, has_unacked
from distconvd.dispatch.matching import EngineEntry
from distconvd.dispatch.transaction import Transaction


def reclaim_long_poll(
    tx: Transaction, engine_id: str, waiting_entry: EngineEntry | None
) -> EngineEntry | None:
    """Park the engine unless it is parked already; return where.

    `waiting_entry` is what the last call returned. An engine that was removed and has registered again
    is another entry, at which nobody is parked yet; one that is not registered has none.
    """
    entry = tx.state.pool.engines.get(engine_id)
    if entry is not None and entry is not waiting_entry:
        add_waiter(tx, engine_id, 1)
    return entry


def leave(tx: Transaction, engine_id: str, waiting_entry: EngineEntry | None) -> None:
    """End what `reclaim_long_poll` began; what was not delivered stays for the engine's next question."""
    if waiting_entry is not None and tx.state.pool.engines.get(engine_id) is waiting_entry:
        add_waiter(tx, engine_id, -1)


def deliver_again(tx: Transaction, engine_id: str) -> None:
    """Have everything delivered that the engine's heartbeats have not named yet: the connection
    before this one may have broken with it on the way. An engine that has it ignores it."""
    entry = tx.state.pool.engines.get(engine_id)
    if entry is not None:
        waiting = tx.runtime.unacked.setdefault(engine_id, {})
        waiting.update((job_id, None) for job_id in entry.assigned if job_id not in entry.named)


def next_unacked(tx: Transaction, engine_id: str) -> tuple[str, bytes] | None:
    """Return id and view of a job that was assigned to the engine and not delivered, or None."""
    if not has_unacked(tx, engine_id):
        return None
    job_id = next(iter(tx.runtime.unacked[engine_id]))
    return job_id, tx.job_view(job_id)


def note_delivered(tx: Transaction, engine_id: str, job_id: str) -> None:
    """Note that a job is on its way to the engine."""
    tx.runtime.unacked.get(engine_id, {}).pop(job_id, None)


def is_draining(tx: Transaction, engine_id: str) -> bool:
    """Whether a person has told the engine to take nothing new."""
    entry = tx.state.pool.engines.get(engine_id)
    return entry is not None and entry.record.draining
