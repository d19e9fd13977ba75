"""Submit, change, cancel and restart jobs."""

import logging

import msgspec

from distconvd.dispatch.lifecycle import JobEvent
from distconvd.dispatch.records import UNREADABLE, encode
from distconvd.dispatch.reports import end_attempt
from distconvd.dispatch.transaction import Transaction
from distconvd.errors import Conflict, JobArchived, Unavailable, Unprocessable
from distconvd.model import (
    TERMINAL_STATUSES,
    AttemptOutcome,
    FailureClass,
    Job,
    JobPatch,
    JobStatus,
    Submission,
    new_run_fields,
)

log = logging.getLogger("distconvd.dispatch")

IDEMPOTENCY_PREFIX = "idempotency:"


class IdempotencyKey(msgspec.Struct, frozen=True):
    """A client's own name for a submission: sending it twice creates one job."""

    key: str
    digest: str
    """Hash of the request, to detect a key that is used for a different request."""


class Submitter(msgspec.Struct, frozen=True):
    """Who submits a job, and what the job may therefore do."""

    name: str | None = None
    """Of the key; None: not known."""
    may_read_media: bool | None = None
    """Whether the key may read the media store."""


NOBODY = Submitter()


class Remembered(msgspec.Struct, frozen=True):
    """The record of an idempotency key: the hash of the request, and the job that it created."""

    digest: str
    job_id: str


def submit(
    tx: Transaction,
    submission: Submission,
    idempotency: IdempotencyKey | None = None,
    submitter: Submitter = NOBODY,
) -> bytes:
    """Accept a job and return it as on the wire.

    Raises `Unprocessable` if the key was used for a different request, `JobArchived` if its job has
    been retired since, and `Unavailable` at `jobs_max`.
    """
    if idempotency is not None:
        known = _recall(tx, idempotency)
        if known is not None:
            return tx.job_view(known)
    if len(tx.state.jobs) >= tx.settings.jobs_max:
        raise Unavailable(
            f"The limit of stored jobs (jobs_max, {tx.settings.jobs_max}) is reached; try later.",
            retry_after_s=60,
        )
    job = _new_job(tx, submission, submitter)
    tx.put_job(None, job)
    if idempotency is not None:
        remember(tx, idempotency, job.job_id)
    tx.emit("job.submitted", job)
    return tx.job_view(job.job_id)


def recall(tx: Transaction, idempotency: IdempotencyKey) -> bool:
    """Return whether a key created a job before; raises like `submit`."""
    return _recall(tx, idempotency) is not None


def check_batch_key(tx: Transaction, idempotency: IdempotencyKey) -> bool:
    """Return whether the key of a whole batch is known; raises `Unprocessable`."""
    try:
        return _recall(tx, idempotency) is not None
    except JobArchived:
        return True


def remember(tx: Transaction, idempotency: IdempotencyKey, job_id: str) -> None:
    """Store which job a key created."""
    record = encode(Remembered(idempotency.digest, job_id))
    tx.put("meta", IDEMPOTENCY_PREFIX + idempotency.key, record)
    if len(tx.state.meta) > tx.settings.idempotency_keys_max:
        oldest = next(k for k in tx.state.meta if k.startswith(IDEMPOTENCY_PREFIX))
        tx.put("meta", oldest, None)


def rehearse(tx: Transaction, submission: Submission, submitter: Submitter = NOBODY) -> bytes:
    """Return the job that `submit` would create, without creating it (`?dry_run=true`)."""
    return encode(msgspec.structs.replace(_new_job(tx, submission, submitter), job_id="dry-run"))


def patch(tx: Transaction, job_id: str, change: JobPatch) -> bytes:
    """Change fields of a job that has not ended; raises `Conflict` if it has."""
    job = tx.job(job_id)
    if job.status in TERMINAL_STATUSES:
        raise Conflict(f"Job is {job.status}: only jobs that have not ended can be changed.")
    given = {
        name: value
        for name in JobPatch.__struct_fields__
        if (value := getattr(change, name)) is not msgspec.UNSET
    }
    changed = tx.edit_job(job, **given)
    reason = "paused" if changed.paused else "resumed"
    tx.emit("job.updated", changed, reason=None if changed.paused == job.paused else reason)
    return tx.job_view(job_id)


def cancel(tx: Transaction, job_id: str) -> bytes:
    """Cancel a job that has not ended; its engine learns of it at its next contact.

    Cancelling again gets the same answer; raises `Conflict` for a job that ended differently.
    """
    job = tx.job(job_id)
    if job.status is JobStatus.CANCELLED:
        return tx.job_view(job_id)
    if job.status in TERMINAL_STATUSES:
        raise Conflict(f"Job is {job.status} already; nothing to cancel.")
    was_assigned = job.status is JobStatus.ASSIGNED
    cancelled = tx.move_job(
        job,
        JobEvent.CANCEL,
        finished_at=tx.now.wall_ms,
        progress=None,
        error_class=FailureClass.CANCELLED,
        error_message="Cancelled on request.",
    )
    if was_assigned:
        end_attempt(tx, job, AttemptOutcome.CANCELLED)
    tx.emit("job.cancelled", cancelled)
    return tx.job_view(job_id)


def restart(tx: Transaction, job_id: str) -> bytes:
    """Start an ended job again, with all its retries; raises `Conflict` if it has not ended."""
    job = tx.job(job_id)
    if job.status not in TERMINAL_STATUSES:
        raise Conflict(f"Job is {job.status}: only a job that has ended can be started again.")
    restarted = tx.move_job(job, JobEvent.RESTART, **new_run_fields(job))
    tx.emit("job.restarted", restarted)
    return tx.job_view(job_id)


def _new_job(tx: Transaction, submission: Submission, submitter: Submitter) -> Job:
    fields = {name: getattr(submission, name) for name in Submission.__struct_fields__}
    return Job(
        job_id=tx.runtime.new_job_id(),
        created_at=tx.now.wall_ms,
        updated_at=tx.now.wall_ms,
        submitted_by=submitter.name,
        may_read_media=submitter.may_read_media,
        **fields,
    )


def _recall(tx: Transaction, idempotency: IdempotencyKey) -> str | None:
    """Return the job that this key created, or None if the key is not known."""
    record = tx.state.meta.get(IDEMPOTENCY_PREFIX + idempotency.key)
    if record is None:
        return None
    try:
        known = msgspec.json.decode(record, type=Remembered)
    except UNREADABLE:
        log.error(
            "the record of Idempotency-Key %r cannot be read; the key counts as new",
            idempotency.key,
        )
        return None
    if known.digest != idempotency.digest:
        raise Unprocessable(
            "This Idempotency-Key was used before for a different request; use a new key.",
            field="Idempotency-Key",
        )
    if known.job_id not in tx.state.jobs:
        raise JobArchived(known.job_id)
    return known.job_id
