"""Count connected engines as waiting in a long poll, and track what was sent to them.

These are commands like those of `distconvd.dispatch`: no I/O, no clock.
"""

from distconvd.dispatch.assign import add_waiter, has_unacked
from distconvd.dispatch.matching import EngineEntry
from distconvd.dispatch.transaction import Transaction


def ensure_waiter(
    tx: Transaction, engine_id: str, waiting_entry: EngineEntry | None
) -> EngineEntry | None:
    """Add a waiter for the engine unless the connection has one already; return the engine's entry.

    `waiting_entry` is what the last call returned. An engine that was removed and has registered again
    has a new entry, without a waiter; one that is not registered has no entry.
    """
    entry = tx.state.pool.engines.get(engine_id)
    if entry is not None and entry is not waiting_entry:
        add_waiter(tx, engine_id, 1)
    return entry


def remove_waiter(tx: Transaction, engine_id: str, waiting_entry: EngineEntry | None) -> None:
    """Remove the waiter; what was not sent stays until the engine asks for work again."""
    if waiting_entry is not None and tx.state.pool.engines.get(engine_id) is waiting_entry:
        add_waiter(tx, engine_id, -1)


def mark_unacked(tx: Transaction, engine_id: str) -> None:
    """Mark as unacknowledged all assigned jobs that the engine's heartbeats have not named yet.

    The previous connection may have broken while it sent them; an engine ignores a job that it has.
    """
    entry = tx.state.pool.engines.get(engine_id)
    if entry is not None:
        unnamed = (job_id for job_id in entry.assigned if job_id not in entry.named)
        tx.runtime.note_unacked(engine_id, unnamed)


def next_unacked(tx: Transaction, engine_id: str) -> tuple[str, bytes] | None:
    """Return id and view of a job that was assigned to the engine but not sent, or None."""
    if not has_unacked(tx, engine_id):
        return None
    job_id = next(iter(tx.runtime.unacked[engine_id]))
    return job_id, tx.job_view(job_id)


def mark_sent(tx: Transaction, engine_id: str, job_id: str) -> None:
    """Record that a job has been sent to the engine."""
    tx.runtime.acknowledge(engine_id, job_id)


def is_draining(tx: Transaction, engine_id: str) -> bool:
    """Whether the engine is draining at a person's request."""
    entry = tx.state.pool.engines.get(engine_id)
    return entry is not None and entry.record.draining
