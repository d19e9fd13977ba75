"""Release assignments that never reached the long-polling engine."""

from distconvd.dispatch.assign import unacked_job
from distconvd.dispatch.reports import release
from distconvd.dispatch.transaction import Transaction
from distconvd.model import ReleaseReport


def release_unacked(tx: Transaction, engine_id: str) -> None:
    """Release the unacknowledged assignments of an engine that has no waiting request left."""
    entry = tx.state.pool.engines.get(engine_id)
    if entry is None or entry.long_polls:
        return
    while (job_id := unacked_job(tx, entry)) is not None:
        attempt = tx.state.job(job_id).attempt
        release(tx, job_id, ReleaseReport(attempt, engine_id, "its key is no longer accepted"))
