"""Handle the reports of engines on jobs: complete, fail, release and progress.

The attempt number is the fencing token. A report of the running attempt counts; a report of an
ended attempt is answered as before if it repeats the earlier one, and gets `Conflict` otherwise. A
legacy report has no number and is judged by the job's state. The first terminal report wins.
"""

from distconvd.dispatch.lifecycle import JobEvent
from distconvd.dispatch.records import encode
from distconvd.dispatch.retries import requeue_or_give_up, wait_after_release
from distconvd.dispatch.transaction import Transaction
from distconvd.errors import Conflict
from distconvd.model import (
    FAILURES,
    Attempt,
    AttemptHistory,
    AttemptOutcome,
    CompleteReport,
    FailReport,
    FailureClass,
    Job,
    JobStatus,
    Limits,
    Progress,
    ProgressReport,
    ReleaseReport,
    Reporter,
    Verdict,
    new_attempt_fields,
)


def complete(tx: Transaction, job_id: str, report: CompleteReport) -> str:
    """Complete a job that an engine reports as done; return the original's sentence.

    Raises `NotFound`, or `Conflict` if the attempt is over or the job ended differently.
    """
    sentence = f"Job {job_id} marked as completed"
    job = tx.job(job_id)
    if _was_completed_so(job, report):
        return sentence
    job = _require_open(tx, job, report.attempt, report.engine_id)
    engine_id = report.engine_id or job.assigned_engine
    done = tx.move_job(
        job,
        JobEvent.COMPLETE,
        assigned_engine=engine_id,
        output_url=report.output_url,
        finished_at=tx.now.wall_ms,
        progress=None,
        result=report.result,
        error_message=None,
        error_class=None,
        not_before=None,
    )
    end_attempt(tx, job, AttemptOutcome.COMPLETED, engine_id=engine_id, reported=True)
    _note_success(tx, engine_id)
    _free_legacy_engine(tx, engine_id)
    tx.emit("job.completed", done)
    return sentence


def fail(tx: Transaction, job_id: str, report: FailReport) -> str:
    """End an attempt that an engine reports as failed; return the original's sentence.

    The failure's class decides what happens next, see `retries`. Raises like `complete`.
    """
    job = tx.job(job_id)
    earlier_answer = _earlier_answer(tx, job, report)
    if earlier_answer is not None:
        return earlier_answer
    job = _require_open(tx, job, report.attempt, report.engine_id)
    engine_id = report.engine_id or job.assigned_engine
    failure = _class_of(report)
    message = report.error_message[: Limits.message_chars]
    needs = report.needs if failure is FailureClass.INCAPABLE else ()
    after = requeue_or_give_up(tx, job, failure, message, needs)
    end_attempt(
        tx,
        job,
        FAILURES[failure].outcome,
        engine_id=engine_id,
        error_class=failure,
        message=message,
        log_tail=report.log_tail,
        requeued=after.status is JobStatus.PENDING,
        reported=True,
    )
    if failure is FailureClass.NO_ACCESS:
        _note_lack(tx, engine_id, message)
    if failure is report.error_class and FAILURES[failure].quarantines:
        _note_failure(tx, engine_id, job_id)
    _free_legacy_engine(tx, engine_id)
    return _failure_sentence(job_id, requeued=after.status is JobStatus.PENDING)


def release(tx: Transaction, job_id: str, report: ReleaseReport) -> str:
    """Requeue a job that its engine gives back: no retry is charged, and no failure is counted.

    A job that is released again and again waits longer each time.
    """
    sentence = f"Job {job_id} re-queued"
    if _was_released_so(tx, tx.job(job_id), report):
        return sentence
    job = _require_open(tx, tx.job(job_id), report.attempt, report.engine_id)
    again_at = wait_after_release(tx, job)
    tx.move_job(job, JobEvent.REQUEUE, assigned_engine=None, progress=None, not_before=again_at)
    reason = report.reason[: Limits.message_chars]
    end_attempt(tx, job, AttemptOutcome.RELEASED, message=reason, requeued=True, reported=True)
    tx.emit("job.requeued", tx.job(job_id), reason=reason)
    return sentence


def progress(tx: Transaction, job_id: str, report: ProgressReport) -> Verdict:
    """Note the progress of an attempt and renew its lease; nothing of it is stored.

    Raises `Conflict` if the attempt is over: the engine should stop it.
    """
    job = _require_open(tx, tx.job(job_id), report.attempt, report.engine_id, to_go_on=True)
    shown = Progress(
        min(1.0, max(0.0, report.fraction)),
        report.fps,
        report.speed,
        report.eta_seconds,
        report.phase,
    )
    tx.state.progress[job_id] = shown
    tx.runtime.grant_lease(job_id)
    tx.runtime.acknowledge(job.assigned_engine, job_id)
    tx.emit("job.progress", job)
    return Verdict(job_id, job.attempt, "keep", job.paused)


def end_attempt(
    tx: Transaction,
    job: Job,
    outcome: AttemptOutcome,
    *,
    engine_id: str | None = None,
    error_class: FailureClass | None = None,
    message: str | None = None,
    log_tail: str | None = None,
    requeued: bool = False,
    reported: bool = False,
) -> None:
    """Add the running attempt of `job` (as it was before) to its history.

    A legacy report on a pending job ends no attempt, but is added to the history too.
    """
    tx.runtime.end_lease(job.job_id)
    tx.state.progress.pop(job.job_id, None)
    tx.runtime.acknowledge(job.assigned_engine, job.job_id)
    engine_id = engine_id or job.assigned_engine
    tx.close_attempt(
        job,
        Attempt(
            number=job.attempt,
            engine_id=engine_id,
            started_at=job.started_at,
            ended_at=tx.now.wall_ms,
            outcome=outcome,
            error_class=error_class,
            message=message,
            log_tail=log_tail[-Limits.log_tail_chars :] if log_tail else None,
            requeued=requeued,
            reported=reported,
        ),
    )


def resume_attempt(
    tx: Transaction, job: Job, engine_id: str | None, *, to_go_on: bool = True
) -> Job | None:
    """Resume a lost attempt on its engine, if no other engine has started the job since.

    Returns the job, assigned under its old attempt number, or None if that is not possible. An
    engine that got other work meanwhile may not go on (`to_go_on`) beyond its slots; but work that
    it has finished counts.
    """
    history = tx.state.history(job.job_id)
    if job.status is not JobStatus.PENDING or not history.attempts:
        return None
    last = history.attempts[-1]
    is_same = last.number == job.attempt and engine_id in (None, last.engine_id)
    if not is_same or last.engine_id is None or last.outcome is not AttemptOutcome.LOST:
        return None
    if last.reported:
        return None  # the engine reported the loss itself, and the first report counts
    entry = tx.state.pool.engines.get(last.engine_id or "")
    if to_go_on and entry is not None and len(entry.assigned) >= entry.record.slots:
        return None
    again = tx.move_job(
        job,
        JobEvent.RESUME,
        **new_attempt_fields(assigned_engine=last.engine_id, started_at=last.started_at),
    )
    shorter = AttemptHistory(job.job_id, history.attempts[:-1], history.dropped)
    tx.put("attempts", job.job_id, encode(shorter) if shorter.attempts else None)
    tx.runtime.grant_lease(job.job_id)
    tx.emit("job.assigned", again, reason="its engine is back")
    return again


def _require_open(
    tx: Transaction,
    job: Job,
    attempt: int | None,
    engine_id: str | None,
    *,
    to_go_on: bool = False,
) -> Job:
    """Return the job if a report on it counts; raises `Conflict` if it does not.

    `to_go_on`: the report does not end the attempt.
    """
    if job.status not in (JobStatus.ASSIGNED, JobStatus.PENDING):
        raise Conflict(f"Job is already in a final state ({job.status}); nothing was changed.")
    if attempt is None:
        return job
    if attempt != job.attempt:
        was = "is over" if attempt < job.attempt else "was never assigned"
        raise Conflict(
            f"Attempt {attempt} {was}; the job is at attempt {job.attempt}. Stop this one."
        )
    if job.status is JobStatus.PENDING:
        again = resume_attempt(tx, job, engine_id, to_go_on=to_go_on)
        if again is None:
            raise Conflict(
                f"Attempt {attempt} is over; the job waits for another attempt. Stop this one."
            )
        return again
    if engine_id is not None and engine_id != job.assigned_engine:
        raise Conflict(
            f"Attempt {attempt} belongs to engine {job.assigned_engine}, not to this one."
        )
    return job


def _was_completed_so(job: Job, report: CompleteReport) -> bool:
    """Whether this very report was accepted before."""
    return (
        job.status is JobStatus.COMPLETED
        and report.attempt in (None, job.attempt)
        and report.output_url == job.output_url
        and (report.engine_id is None or report.engine_id == job.assigned_engine)
    )


def _was_released_so(tx: Transaction, job: Job, report: ReleaseReport) -> bool:
    """Whether this engine released this attempt before."""
    return any(
        ended.number == report.attempt
        and ended.outcome is AttemptOutcome.RELEASED
        and ended.engine_id == report.engine_id
        for ended in tx.state.history(job.job_id).attempts
    )


def _earlier_answer(tx: Transaction, job: Job, report: FailReport) -> str | None:
    """Return the earlier answer to this very failure report, or None if the report is new.

    A legacy report on a pending job cannot be distinguished from a second failure and counts as
    one.
    """
    message = report.error_message[: Limits.message_chars]
    if report.attempt is None:
        if job.status is JobStatus.FAILED_PERMANENTLY and message == job.error_message:
            return _failure_sentence(job.job_id, requeued=False)
        return None
    for ended in reversed(tx.state.history(job.job_id).attempts):
        if (
            ended.number == report.attempt
            and ended.outcome in (AttemptOutcome.FAILED, AttemptOutcome.LOST)
            and ended.message == message
            and report.engine_id in (None, ended.engine_id)
        ):
            return _failure_sentence(job.job_id, requeued=ended.requeued)
    return None


def _class_of(report: FailReport) -> FailureClass:
    """Return the class that a failure counts as: the report's, where its reporter is believed.

    A legacy report names none; it counts as `engine`, but not towards quarantine.
    """
    if report.error_class is None:
        return FailureClass.ENGINE
    reporter = FAILURES[report.error_class].reporter
    is_believed = reporter is Reporter.ENGINE or (
        reporter is Reporter.NUMBERED_ENGINE and report.attempt is not None
    )
    return report.error_class if is_believed else FailureClass.ENGINE


def _failure_sentence(job_id: str, *, requeued: bool) -> str:
    return f"Job {job_id} re-queued" if requeued else f"Job {job_id} failed permanently"


def _note_success(tx: Transaction, engine_id: str | None) -> None:
    """End an engine's run of failures."""
    entry = tx.state.pool.engines.get(engine_id or "")
    if entry is not None and (entry.record.failed_jobs or entry.record.lacks is not None):
        tx.edit_engine(entry.record, failed_jobs=[], lacks=None)


def _note_lack(tx: Transaction, engine_id: str | None, message: str) -> None:
    """Show with the engine what it cannot reach, and leave its quarantine alone."""
    entry = tx.state.pool.engines.get(engine_id or "")
    if entry is not None and entry.record.lacks != message:
        tx.edit_engine(entry.record, lacks=message)


def _note_failure(tx: Transaction, engine_id: str | None, job_id: str) -> None:
    """Count a failure against an engine; quarantine it after too many different jobs in a row."""
    entry = tx.state.pool.engines.get(engine_id or "")
    limit = tx.settings.quarantine_after
    if entry is None or not limit or job_id in entry.record.failed_jobs:
        return
    failed = [*entry.record.failed_jobs, job_id]
    if len(failed) < limit:
        tx.edit_engine(entry.record, failed_jobs=failed)
        return
    until = tx.now.wall_ms + int(tx.settings.quarantine_s * 1000)
    # Keep one fewer than the limit: after the quarantine a single further failure is enough.
    tx.edit_engine(
        entry.record, failed_jobs=failed[len(failed) - limit + 1 :], quarantined_until=until
    )
    tx.runtime.watch_quarantine(entry.record.engine_id, until)
    jobs = "1 job" if limit == 1 else f"{limit} different jobs in a row"
    reason = f"{jobs} failed on it"
    tx.emit("engine.quarantined", engine_id=entry.record.engine_id, reason=reason)


def _free_legacy_engine(tx: Transaction, engine_id: str | None) -> None:
    """Set a legacy engine that reported `busy` to idle when its last job ends, as the original
    does; ours reports it in its next heartbeat."""
    entry = tx.state.pool.engines.get(engine_id or "")
    if entry is not None and entry.record.status == "busy" and not entry.assigned:
        tx.edit_engine(entry.record, status="idle")
