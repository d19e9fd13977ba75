"""Who may report on a job: an engine that is known by name reports on what it holds, or held."""

from distconvd.dispatch.transaction import Transaction
from distconvd.errors import Forbidden


def require_assigned_engine(tx: Transaction, job_id: str, engine_id: str) -> None:
    """Raise `Forbidden` where an engine neither holds the job nor ever held it.

    One that held it is the dispatcher's to judge: late work is still work, stale work is 409.
    """
    if tx.job(job_id).assigned_engine == engine_id:
        return
    if all(attempt.engine_id != engine_id for attempt in tx.state.history(job_id).attempts):
        raise Forbidden(f"Engine {engine_id!r} does not hold job {job_id}, and never did.")
