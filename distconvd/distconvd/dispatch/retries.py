"""Requeue a job whose attempt did not succeed, or give it up.

What a failure class costs, and when it is retried, is in the table `distconvd.model.FAILURES`.
"""

from collections.abc import Collection, Iterable, Sequence

from distconvd.dispatch.lifecycle import JobEvent
from distconvd.dispatch.matching.requirements import Requirements, requirements_of
from distconvd.dispatch.transaction import Transaction
from distconvd.model import (
    FAILURES,
    Attempt,
    AttemptOutcome,
    Charge,
    FailureClass,
    FailureRule,
    Job,
    Limits,
    Retry,
    Wait,
)


def requeue_or_give_up(
    tx: Transaction, job: Job, failure: FailureClass, message: str, needs: Sequence[str] = ()
) -> Job:
    """Requeue or end a job after a failed attempt (not yet in its history), and emit the event.

    `needs` are capabilities that the attempt has found its source to need.
    """
    past = _since_restart(tx, job)
    rule = FAILURES[failure]
    charged = _is_charged(tx, past, failure)
    is_over = rule.retried is Retry.NEVER or (charged and job.retries >= job.max_retries)
    if rule.retried is Retry.ELSEWHERE:
        failed = engines_to_avoid(past) | {job.assigned_engine}
        is_over = not has_other_engine(tx, requirements_of(job), failed)
        if is_over and len(failed) > 1:
            message = f"None of the {len(failed)} engines that could take it can do it. {message}"
    if rule.retried is Retry.UNTIL_LOST_LIMIT:
        lost = 1 + sum(a.outcome is AttemptOutcome.LOST for a in past)
        is_over = lost >= tx.settings.lost_attempts_max
        if is_over:
            were = "engine was" if lost == 1 else "engines were"
            message = f"Poison: {lost} {were} lost with this job. {message}"
    if is_over:
        ended = tx.move_job(
            job,
            JobEvent.GIVE_UP,
            finished_at=tx.now.wall_ms,
            progress=None,
            error_message=message,
            error_class=rule.ends_as or failure,
        )
        tx.emit("job.failed", ended, reason=message)
        return ended
    again = tx.move_job(
        job,
        JobEvent.REQUEUE,
        assigned_engine=None,
        progress=None,
        retries=job.retries + charged,
        not_before=_later(_not_before(tx, past, rule), job.not_before),
        error_message=message,
        error_class=failure,
        needs=_added(job.needs, needs),
    )
    tx.emit("job.requeued", again, reason=message)
    return again


def engines_to_avoid(attempts: Iterable[Attempt]) -> set[str]:
    """Return the engines whose settings or surroundings do not let them do the job."""
    return {
        a.engine_id
        for a in attempts
        if a.engine_id is not None
        and a.error_class is not None
        and FAILURES[a.error_class].retried is Retry.ELSEWHERE
    }


def has_other_engine(
    tx: Transaction, requirements: Requirements, failed: Collection[str | None]
) -> bool:
    """Return whether an engine that has not failed can take such a job, now or later."""
    able = tx.state.pool.engines_for(requirements)
    return any(entry.record.engine_id not in failed for entry in able)


def _added(needs: list[str], more: Sequence[str]) -> list[str]:
    """Return the capabilities that a job needs, with those that were found now, within the limit."""
    return [*needs, *sorted(set(more) - set(needs))][: Limits.tags]


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
    charge = FAILURES[failure].charged
    if charge is not Charge.BEYOND_LIMIT:
        return charge is Charge.ALWAYS
    uncharged = sum(
        a.error_class is not None and FAILURES[a.error_class].charged is Charge.BEYOND_LIMIT
        for a in past
    )
    return uncharged >= tx.settings.transient_attempts_max


def _not_before(tx: Transaction, past: list[Attempt], rule: FailureRule) -> int | None:
    """Return when the next attempt may begin: without a wait, or exponentially later."""
    if rule.wait is Wait.NEVER:
        return None
    failures = sum(a.outcome is AttemptOutcome.FAILED for a in past)
    return _backoff(tx, failures + (rule.wait is Wait.FROM_FIRST))


def _later(one: int | None, other: int | None) -> int | None:
    """Return the later of two moments: a `not_before` that a person set meanwhile still counts."""
    return max(one or 0, other or 0) or None


def _backoff(tx: Transaction, times: int) -> int | None:
    """Return the moment (ms since the epoch) until which to wait, or None for no wait."""
    if not times or not tx.settings.retry_backoff_s:
        return None
    wait_s = tx.settings.retry_backoff_s * 2.0 ** min(times - 1, 30)
    return tx.now.wall_ms + int(1000 * min(wait_s, tx.settings.retry_backoff_max_s))
