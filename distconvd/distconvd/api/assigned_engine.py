"""Check that an engine reports only on jobs that are, or were, assigned to it."""

from distconvd.dispatch.transaction import Transaction
from distconvd.errors import Forbidden


def require_assigned_engine(tx: Transaction, job_id: str, engine_id: str) -> None:
    """Raise `Forbidden` if the job is not assigned to the engine and never was.

    If it once was, the dispatcher decides: late work may still count, stale work is 409.
    """
    if tx.job(job_id).assigned_engine == engine_id:
        return
    if all(attempt.engine_id != engine_id for attempt in tx.state.history(job_id).attempts):
        raise Forbidden(f"Job {job_id} is not assigned to engine {engine_id!r} and never was.")
