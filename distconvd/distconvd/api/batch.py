"""Admit many submissions in one request: NDJSON on `POST /jobs/`, one job per line.

Each line is answered by a line: the job, or the problem that the same line would have got on its own.
All jobs of a batch become durable in one commit. With `?atomic=true` one bad line rejects the whole
batch; without it the good lines are accepted. Blank lines are skipped but counted, so that the number
in an answer is the number of the line in the request.

Each line has its own idempotency key, made from the batch's key and the line's number. The batch's key
is stored for its first job, with the digest of the whole batch, so that using it for anything else is
detected.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from distconvd.api.admission import Admission, idempotency_of
from distconvd.api.caller import Caller
from distconvd.core.ledger import Ledger
from distconvd.dispatch.records import decode_job
from distconvd.dispatch.submit import (
    IdempotencyKey,
    Submitter,
    check_batch_key,
    rehearse,
    remember,
    submit,
)
from distconvd.dispatch.transaction import Transaction
from distconvd.errors import BadRequest, BodyTooLarge, CallerError, JobArchived
from distconvd.model import Submission

LINES_MAX = 1000
CONTENT_TYPE = "application/x-ndjson"


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one line: `job` where `status` is 200, else `detail` and perhaps `field`."""

    line: int
    status: int
    job: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    detail: str | None = None
    field: str | None = None


class _Good(NamedTuple):
    number: int
    submission: Submission
    key: IdempotencyKey | None


class Batch:
    """The admission of many jobs in one request.

    Args:
        ledger: commits.
        admission: checks each line.
    """

    def __init__(self, ledger: Ledger, admission: Admission) -> None:
        self._ledger = ledger
        self._admission = admission

    async def admit(
        self, body: bytes, caller: Caller, *, key: str | None, strict: bool, dry_run: bool, atomic: bool
    ) -> bytes:  # fmt: skip
        """Return the answers as NDJSON, once every job in them is durable.

        Args:
            body: the lines.
            caller: who submits.
            key: an `Idempotency-Key` for the batch as a whole.
            strict: reject fields that no job has.
            dry_run: answer what would become of each line, and create no job.
            atomic: accept all lines or none.

        Raises: `BadRequest` for a bad line with `atomic`, `BodyTooLarge` for over `LINES_MAX` lines,
            `Unprocessable` for a key that was used for another batch, `Unavailable`.
        """
        good: list[_Good] = []
        answers: list[Line] = []
        digest = hashlib.sha256(body).hexdigest()
        for number, raw in _lines_of(body):
            line_key = None
            if key is not None:
                line_key = idempotency_of(key, caller.name, digest, number)
            is_known = not dry_run and await self._admission.is_known(line_key)
            try:
                submission = self._admission.parse(raw, caller, strict=strict)
                if not is_known:
                    submission = self._admission.review(submission, caller.name)
            except CallerError as error:
                if atomic:
                    raise _for_batch(number, error) from error
                answers.append(Line(number, error.status, detail=error.detail, field=error.field))
            else:
                good.append(_Good(number, submission, line_key))
        whole = None if key is None else idempotency_of(key, caller.name, f"batch:{digest}")
        answers += await self._submit(good, whole, caller.submitter, dry_run=dry_run)
        answers.sort(key=lambda answer: answer.line)
        return msgspec.json.Encoder().encode_lines(answers)

    async def _submit(
        self,
        good: Sequence[_Good],
        whole: IdempotencyKey | None,
        submitter: Submitter,
        *,
        dry_run: bool,
    ) -> list[Line]:
        """Create the jobs in one command; an error here is an error of the whole batch."""

        def command(tx: Transaction) -> list[bytes | JobArchived]:
            is_known = whole is not None and check_batch_key(tx, whole)
            if dry_run:
                return [rehearse(tx, each.submission, submitter) for each in good]
            records = [_submit_line(tx, each, submitter) for each in good]
            if whole is not None and records and not is_known:
                remember(tx, whole, _id_of(records[0]))
            return records

        records = await self._ledger.execute(command)
        pairs = zip(good, records, strict=True)
        return [await self._answer(each.number, record) for each, record in pairs]

    async def _answer(self, number: int, record: bytes | JobArchived) -> Line:
        """Return the answer to a line that was accepted, now or long ago."""
        if isinstance(record, bytes):
            return Line(number, 200, msgspec.Raw(record))
        try:
            return Line(number, 200, msgspec.Raw(await self._admission.archived(record.job_id)))
        except CallerError as error:
            return Line(number, error.status, detail=error.detail)


def _submit_line(tx: Transaction, line: _Good, submitter: Submitter) -> bytes | JobArchived:
    """Return the job of a line, or that it has been archived since it was created."""
    try:
        return submit(tx, line.submission, line.key, submitter)
    except JobArchived as known:
        return known


def _id_of(record: bytes | JobArchived) -> str:
    return record.job_id if isinstance(record, JobArchived) else decode_job(record).job_id


def _lines_of(body: bytes) -> list[tuple[int, bytes]]:
    """Return the lines that are not blank, numbered from 1; raises if there are none or too many."""
    lines = [(n, raw) for n, raw in enumerate(body.split(b"\n"), 1) if raw.strip()]
    if len(lines) > LINES_MAX:
        raise BodyTooLarge(
            f"The batch has {len(lines)} jobs; send at most {LINES_MAX} in one request."
        )
    if not lines:
        raise BadRequest("The batch is empty: send one job per line, each a JSON object.")
    return lines


def _for_batch(number: int, error: CallerError) -> CallerError:
    """Return the error of one line as an error of the same class for the whole batch."""
    field = f"line {number}" + (f": {error.field}" if error.field else "")
    detail = f"Line {number}: {error.detail} No job of this batch was created (atomic=true)."
    return type(error)(detail, field=field, headers=error.headers)
