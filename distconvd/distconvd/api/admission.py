"""Admitting a job: decode, validate, let plugins look, then submit. HTTP and the spool share it."""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress

import msgspec

from distconvd.api.decode import check_no_duplicates, decode, decode_object
from distconvd.api.validate import check_known_fields, check_submission
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
    """The door through which every job comes in.

    Args:
        ledger: commits.
        schemes: what a `source_url` may begin with.
        reviews: (plugin name, function) of each `distconvd_review_submission`.
        archive: knows the jobs that have left the store.
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
        self, body: bytes, caller: str, *, key: str | None = None, strict: bool = False,
        dry_run: bool = False,
    ) -> bytes:  # fmt: skip
        """Return the job made of a JSON object, as on the wire, once it is durable.

        Raises `BadRequest`, `Unprocessable` for a key that was used otherwise, `Unavailable`, or
        whatever a plugin refuses it with.
        """
        submission = self.parse(body, strict=strict)
        idempotency = None
        if key is not None:
            idempotency = idempotency_of(key, caller, _digest_of(body))
        if dry_run and idempotency is not None:
            await self._check_key(idempotency)
        if dry_run or not await self.is_known(idempotency):
            submission = self.review(submission, caller)
        if dry_run:
            return await self._ledger.execute(rehearse, submission)
        try:
            return await self._ledger.execute(submit, submission, idempotency)
        except JobArchived as known:
            return await self.archived(known.job_id)

    async def archived(self, job_id: str) -> bytes:
        """Return a job that has left the store, as on the wire; raises `NotFound`."""
        return (await require_archived(self._archive, job_id)).job

    def parse(self, body: bytes, *, strict: bool) -> Submission:
        """Return the job that a JSON object asks for; raises `BadRequest`."""
        submission = decode(body, Submission)
        if strict:
            check_known_fields(decode_object(body))
            check_no_duplicates(body)
        check_submission(submission, self._schemes)
        return submission

    async def is_known(self, idempotency: IdempotencyKey | None) -> bool:
        """Whether a key made a job already, which is then answered as before, whatever a plugin, or
        its settings, would say of it by now. Raises `Unprocessable` as `submit`."""
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
        """Return the job as the plugins leave it; raises whatever one refuses it with."""
        for name, review in self._reviews:
            answer = _asked(name, review, submission, caller)
            if answer is not None:
                submission = answer
                self._check_answer(name, submission)
        return submission

    def _check_answer(self, name: str, answer: Submission) -> None:
        """Hold what a plugin made of a submission, which was valid, against the same rules."""
        try:
            check_submission(answer, self._schemes)
        except BadRequest as error:
            log.exception("plugin %s made an invalid submission of a valid one", name)
            raise _failed(name) from error


def _asked(name: str, review: Review, submission: Submission, caller: str) -> Submission | None:
    """Ask one plugin; raises what it refuses with, and `PluginFailed` for any fault of its own."""
    try:
        answer: object = review(submission, caller)
        if answer is None:
            return answer
        if isinstance(answer, Submission):  # pyright: ignore[reportUnnecessaryIsInstance] - a plugin may answer anything
            # It may hold anything, too: what is of another type, or cannot be written, is its fault.
            return msgspec.json.decode(msgspec.json.encode(answer), type=Submission)
        raise TypeError(f"it answered {answer!r}, no Submission")
    except DistconvError:
        raise
    except (Exception, SystemExit) as error:
        log.exception("plugin %s failed in distconvd_review_submission", name)
        raise _failed(name) from error


def _failed(name: str) -> PluginFailed:
    return PluginFailed(
        f"The plugin {name!r} failed on this submission; the daemon's log tells how."
    )


async def require_archived(archive: Archive | None, job_id: str) -> Archived:
    """Return a job that has left the store; raises `NotFound`."""
    found = await archive.find(job_id) if archive is not None else None
    if found is None:
        raise NotFound("Job not found")
    return found


async def find_job(ledger: Ledger, archive: Archive | None, job_id: str) -> bytes:
    """Return a job as on the wire, from the store or else the archive; raises `NotFound`."""
    try:
        return await ledger.execute(get_job, job_id)
    except NotFound:
        return (await require_archived(archive, job_id)).job


class LocalAccess:
    """`hookspecs.DaemonAccess`: what background services use instead of HTTP."""

    def __init__(self, admission: Admission, ledger: Ledger, archive: Archive | None) -> None:
        self._admission = admission
        self._ledger = ledger
        self._archive = archive

    async def submit(self, fields: bytes, *, idempotency_key: str) -> Job:
        """See `hookspecs.DaemonAccess.submit`."""
        return decode_job(await self._admission.admit(fields, "local", key=idempotency_key))

    async def job(self, job_id: str) -> Job:
        """See `hookspecs.DaemonAccess.job`."""
        return decode_job(await find_job(self._ledger, self._archive, job_id))


def idempotency_of(key: str, caller: str, digest: str, line: int | None = None) -> IdempotencyKey:
    """Return a key in its caller's name space, with the digest of the request that it is for.

    `line` is that of a batch; its keys are told from others by what no key of a caller's can hold.
    Raises `BadRequest` for what is no key.
    """
    if not 0 < len(key) <= Limits.message_chars or not key.isprintable():
        raise BadRequest(
            "'Idempotency-Key' must be printable and not empty.", field="Idempotency-Key"
        )
    part = "" if line is None else f"\n{line}"
    return IdempotencyKey(f"{caller}:{_short(key)}{part}", digest)


def _digest_of(body: bytes) -> str:
    """Return what tells two requests apart: their meaning, not their spacing or order of fields."""
    try:
        canonical = msgspec.json.encode(decode_object(body), order="sorted")
    except RecursionError as error:
        raise BadRequest("Invalid JSON: it is nested too deeply.") from error
    return hashlib.sha256(canonical).hexdigest()


def _short(key: str) -> str:
    """Return the key, or a hash of one that is too long to keep."""
    return key if len(key) <= 128 else "sha256:" + hashlib.sha256(key.encode()).hexdigest()
