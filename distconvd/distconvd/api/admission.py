"""Admit a job: decode, validate, let plugins review, then submit. HTTP and spool share this."""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress

import msgspec

from distconvd.api.caller import LOCAL, Caller
from distconvd.api.decode import decode, decode_object
from distconvd.api.known_fields import check_known_fields, check_no_duplicates
from distconvd.api.validate import check_decoded
from distconvd.core.archive import Archive, Archived
from distconvd.core.ledger import Ledger
from distconvd.dispatch.queries import get_job
from distconvd.dispatch.records import decode_job
from distconvd.dispatch.submit import IdempotencyKey, recall, rehearse, submit
from distconvd.errors import BadRequest, DistconvError, JobArchived, NotFound, PluginFailed
from distconvd.model import Job, Limits, Submission

log = logging.getLogger("distconvd.admission")

Review = Callable[[Submission, str], Submission | None]


class Admission:
    """The checks that every new job passes.

    Args:
        ledger: commits.
        schemes: those that a `source_url` may have.
        reviews: (plugin name, function) of each `distconvd_review_submission`.
        archive: the retired jobs.
    """

    def __init__(
        self,
        ledger: Ledger,
        schemes: list[str],
        reviews: list[tuple[str, Review]],
        archive: Archive | None,
    ) -> None:
        self._archive = archive
        self._ledger = ledger
        self._schemes = schemes
        self._reviews = reviews

    async def admit(
        self, body: bytes, caller: Caller, *, key: str | None = None, strict: bool = False,
        dry_run: bool = False,
    ) -> bytes:  # fmt: skip
        """Return the job made from a JSON object, as on the wire, once it is durable.

        Raises `BadRequest`, `Unprocessable` for a key that was used for another request,
        `Unavailable`, or the error with which a plugin rejects it.
        """
        submission = self.parse(body, caller, strict=strict)
        idempotency = None
        if key is not None:
            idempotency = idempotency_of(key, caller.name, _digest_of(body))
        if dry_run and idempotency is not None:
            await self._check_key(idempotency)
        if dry_run or not await self.is_known(idempotency):
            submission = self.review(submission, caller.name)
        if dry_run:
            return await self._ledger.execute(rehearse, submission, caller.submitter)
        try:
            return await self._ledger.execute(submit, submission, idempotency, caller.submitter)
        except JobArchived as known:
            return await self.archived(known.job_id)

    async def archived(self, job_id: str) -> bytes:
        """Return a retired job, as on the wire; raises `NotFound`."""
        return (await require_archived(self._archive, job_id)).job

    def parse(self, body: bytes, caller: Caller, *, strict: bool) -> Submission:
        """Return the job that a JSON object asks for; raises `BadRequest`, or `Forbidden` for a
        source that the caller may not read."""
        submission = decode(body, Submission)
        if strict:
            check_known_fields(decode_object(body))
            check_no_duplicates(body)
        check_decoded(submission, self._schemes)
        caller.check_source(submission.source_url)
        return submission

    async def is_known(self, idempotency: IdempotencyKey | None) -> bool:
        """Whether a key has created a job already. Such a job is answered as before, even if a plugin
        would reject it by now. Raises `Unprocessable` as `submit` does."""
        if idempotency is None or not self._reviews:
            return False
        try:
            return await self._ledger.execute(recall, idempotency)
        except JobArchived:
            return True

    async def _check_key(self, idempotency: IdempotencyKey) -> None:
        """Raise `Unprocessable` for a key that was used for another request."""
        with suppress(JobArchived):
            await self._ledger.execute(recall, idempotency)

    def review(self, submission: Submission, caller: str) -> Submission:
        """Return the job as the plugins leave it; raises the error with which one rejects it."""
        for name, review in self._reviews:
            answer = _ask(name, review, submission, caller)
            if answer is not None:
                submission = answer
                self._check_answer(name, submission)
        return submission

    def _check_answer(self, name: str, answer: Submission) -> None:
        """Check a submission that a plugin has changed against the same rules."""
        try:
            check_decoded(answer, self._schemes)
        except BadRequest as error:
            log.exception("plugin %s returned an invalid submission", name)
            raise _failed(name) from error


def _ask(name: str, review: Review, submission: Submission, caller: str) -> Submission | None:
    """Ask one plugin; raises the error that it rejects with, and `PluginFailed` if it fails."""
    try:
        answer: object = review(submission, caller)
        if answer is None:
            return answer
        if isinstance(answer, Submission):  # pyright: ignore[reportUnnecessaryIsInstance] - a plugin may answer anything
            # Its fields may have any type, too: what cannot be encoded or decoded is its fault.
            return msgspec.json.decode(msgspec.json.encode(answer), type=Submission)
        raise TypeError(f"it returned {answer!r}, not a Submission")
    except DistconvError:
        raise
    except (Exception, SystemExit) as error:
        log.exception("plugin %s failed in distconvd_review_submission", name)
        raise _failed(name) from error


def _failed(name: str) -> PluginFailed:
    return PluginFailed(
        f"The plugin {name!r} failed on this submission; the daemon's log has the details."
    )


async def require_archived(archive: Archive | None, job_id: str) -> Archived:
    """Return a retired job from the archive; raises `NotFound`."""
    found = await archive.find(job_id) if archive is not None else None
    if found is None:
        raise NotFound("Job not found")
    return found


async def find_job(ledger: Ledger, archive: Archive | None, job_id: str) -> bytes:
    """Return a job as on the wire, from the store or the archive; raises `NotFound`."""
    try:
        return await ledger.execute(get_job, job_id)
    except NotFound:
        return (await require_archived(archive, job_id)).job


class LocalAccess:
    """`hookspecs.DaemonAccess`, which background services use instead of HTTP."""

    def __init__(self, admission: Admission, ledger: Ledger, archive: Archive | None) -> None:
        self._admission = admission
        self._ledger = ledger
        self._archive = archive

    async def submit(self, fields: bytes, *, idempotency_key: str) -> Job:
        """See `hookspecs.DaemonAccess.submit`."""
        return decode_job(await self._admission.admit(fields, LOCAL, key=idempotency_key))

    async def job(self, job_id: str) -> Job:
        """See `hookspecs.DaemonAccess.job`."""
        return decode_job(await find_job(self._ledger, self._archive, job_id))


def idempotency_of(key: str, caller: str, digest: str, line: int | None = None) -> IdempotencyKey:
    """Return a key in its caller's name space, with the digest of the request that it is for.

    `line` is the number of a batch's line; it is appended after a newline, which no caller's key can
    contain. Raises `BadRequest` for an invalid key.
    """
    if not 0 < len(key) <= Limits.message_chars or not key.isprintable():
        raise BadRequest(
            "'Idempotency-Key' must be printable and not empty.", field="Idempotency-Key"
        )
    part = "" if line is None else f"\n{line}"
    return IdempotencyKey(f"{caller}:{_short(key)}{part}", digest)


def _digest_of(body: bytes) -> str:
    """Return a digest of a request's meaning: spacing and the order of fields do not change it."""
    try:
        canonical = msgspec.json.encode(decode_object(body), order="sorted")
    except RecursionError as error:
        raise BadRequest("Invalid JSON: it is nested too deeply.") from error
    return hashlib.sha256(canonical).hexdigest()


def _short(key: str) -> str:
    """Return the key, or its hash if it is too long to store."""
    return key if len(key) <= 128 else "sha256:" + hashlib.sha256(key.encode()).hexdigest()
