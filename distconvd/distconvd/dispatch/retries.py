"""Requeue a job whose attempt did not succeed, or give it up.

| class | retry charged | back to the queue |
| --- | --- | --- |
| input | - | never: no engine could do better |
| engine, verification | yes | while retries < max_retries |
| transient | no, up to `transient_attempts_max` | after a backoff |
| lost | no | until `lost_attempts_max` engines were lost with it |
"""

from distconvd.dispatch.lifecycle import JobEvent
from distconvd.dispatch.transaction import Transaction
from distconvd.model import Attempt, AttemptOutcome, FailureClass, Job


def requeue_or_give_up(tx: Transaction, job: Job, failure: FailureClass, message: str) -> Job:
    """Requeue or end a job after a failed attempt (not yet in its history), and emit the event."""
    past = _since_restart(tx, job)
    charged = _is_charged(tx, past, failure)
    if failure is FailureClass.LOST:
        lost = 1 + sum(a.outcome is AttemptOutcome.LOST for a in past)
        is_over = lost >= tx.settings.lost_attempts_max
        if is_over:
            were = "engine was" if lost == 1 else "engines were"
            message = f"Poison: {lost} {were} lost with this job. {message}"
    else:
        is_over = failure is FailureClass.INPUT or (charged and job.retries >= job.max_retries)
    if is_over:
        ended = tx.move_job(
            job,
            JobEvent.GIVE_UP,
            finished_at=tx.now.wall_ms,
            progress=None,
            error_message=message,
            error_class=failure,
        )
        tx.emit("job.failed", ended, reason=message)
        return ended
    again = tx.move_job(
        job,
        JobEvent.REQUEUE,
        assigned_engine=None,
        progress=None,
        retries=job.retries + charged,
        not_before=_later(_not_before(tx, past, failure), job.not_before),
        error_message=message,
        error_class=failure,
    )
    tx.emit("job.requeued", again, reason=message)
    return again


def wait_after_release(tx: Transaction, job: Job) -> int | None:
    """Return when a job may be assigned again after a release: immediately the first time, later
    after a backoff, and never before its own `not_before`."""
    past = _since_restart(tx, job)
    times = sum(a.outcome is AttemptOutcome.RELEASED for a in past)
    return _later(_backoff(tx, times), job.not_before)


def _since_restart(tx: Transaction, job: Job) -> list[Attempt]:
    """Return the ended attempts that count: those since a person last started the job."""
    return [a for a in tx.state.history(job.job_id).attempts if a.number > job.base_attempt]


def _is_charged(tx: Transaction, past: list[Attempt], failure: FailureClass) -> bool:
    if failure in (FailureClass.ENGINE, FailureClass.VERIFICATION):
        return True
    transient = sum(a.error_class is FailureClass.TRANSIENT for a in past)
    return failure is FailureClass.TRANSIENT and transient >= tx.settings.transient_attempts_max


def _not_before(tx: Transaction, past: list[Attempt], failure: FailureClass) -> int | None:
    """Return when the next attempt may begin: the first retry immediately (a transient failure
    waits from the first), then exponentially later."""
    failures = sum(a.outcome is AttemptOutcome.FAILED for a in past)
    if failure is FailureClass.TRANSIENT:
        failures += 1
    return None if failure is FailureClass.LOST else _backoff(tx, failures)


def _later(one: int | None, other: int | None) -> int | None:
    """Return the later of two moments: a `not_before` that a person set meanwhile still counts."""
    return max(one or 0, other or 0) or None


def _backoff(tx: Transaction, times: int) -> int | None:
    """Return the moment (ms since the epoch) until which to wait, or None for no wait."""
    if not times or not tx.settings.retry_backoff_s:
        return None
    wait_s = tx.settings.retry_backoff_s * 2.0 ** min(times - 1, 30)
    return tx.now.wall_ms + int(1000 * min(wait_s, tx.settings.retry_backoff_max_s))
