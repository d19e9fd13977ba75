"""Many submissions in one request: NDJSON on `POST /jobs/`, one job a line.

Each line is answered by a line: the job, or the problem that the same line alone would have got.
All jobs of a batch become durable in one commit. With `?atomic=true` one bad line refuses the whole
batch; without it the good lines are taken. Blank lines are skipped and counted, so that the number
in an answer is the number of the line in the request.

Each line has an idempotency key of its own, made of the batch's and its number. The batch's stands for
its first job, with the digest of the whole, so that it is noticed when it is used for anything else.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from distconvd.api.admission import Admission, idempotency_of
from distconvd.core.ledger import Ledger
from distconvd.dispatch.records import decode_job
from distconvd.dispatch.submit import (
    IdempotencyKey,
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
    """The door for many jobs at once.

    Args:
        ledger: commits.
        admission: decides about each line.
    """

    def __init__(self, ledger: Ledger, admission: Admission) -> None:
        self._ledger = ledger
        self._admission = admission

    async def admit(
        self, body: bytes, caller: str, *, key: str | None, strict: bool, dry_run: bool, atomic: bool
    ) -> bytes:  # fmt: skip
        """Return the answers as NDJSON, once every job in them is durable.

        Args:
            body: the lines.
            caller: the name of the key that was used.
            key: an `Idempotency-Key` for the batch as a whole.
            strict: refuse fields that no job has.
            dry_run: say what would become of each line, and make no job.
            atomic: take all lines or none.

        Raises: `BadRequest` for a bad line with `atomic`, `BodyTooLarge` past `LINES_MAX` lines,
            `Unprocessable` for a key that was used for another batch, `Unavailable`.
        """
        good: list[_Good] = []
        answers: list[Line] = []
        digest = hashlib.sha256(body).hexdigest()
        for number, raw in _lines_of(body):
            line_key = None
            if key is not None:
                line_key = idempotency_of(key, caller, digest, number)
            is_known = not dry_run and await self._admission.is_known(line_key)
            try:
                submission = self._admission.parse(raw, strict=strict)
                if not is_known:
                    submission = self._admission.review(submission, caller)
            except CallerError as error:
                if atomic:
                    raise _refused(number, error) from error
                answers.append(Line(number, error.status, detail=error.detail, field=error.field))
            else:
                good.append(_Good(number, submission, line_key))
        whole = None if key is None else idempotency_of(key, caller, f"batch:{digest}")
        answers += await self._take(good, whole, dry_run=dry_run)
        answers.sort(key=lambda answer: answer.line)
        return msgspec.json.Encoder().encode_lines(answers)

    async def _take(
        self, good: Sequence[_Good], whole: IdempotencyKey | None, *, dry_run: bool
    ) -> list[Line]:
        """Make the jobs in one step; what fails here fails for all."""

        def command(tx: Transaction) -> list[bytes | JobArchived]:
            is_known = whole is not None and check_batch_key(tx, whole)
            if dry_run:
                return [rehearse(tx, each.submission) for each in good]
            made = [_submitted(tx, each) for each in good]
            if whole is not None and made and not is_known:
                remember(tx, whole, _id_of(made[0]))
            return made

        records = await self._ledger.execute(command)
        pairs = zip(good, records, strict=True)
        return [await self._answered(each.number, record) for each, record in pairs]

    async def _answered(self, number: int, record: bytes | JobArchived) -> Line:
        """Return the answer to a line that was taken, now or long ago."""
        if isinstance(record, bytes):
            return Line(number, 200, msgspec.Raw(record))
        try:
            return Line(number, 200, msgspec.Raw(await self._admission.archived(record.job_id)))
        except CallerError as error:
            return Line(number, error.status, detail=error.detail)


def _submitted(tx: Transaction, line: _Good) -> bytes | JobArchived:
    """Return the job of a line, or that it has left for the archive since it was made."""
    try:
        return submit(tx, line.submission, line.key)
    except JobArchived as known:
        return known


def _id_of(made: bytes | JobArchived) -> str:
    return made.job_id if isinstance(made, JobArchived) else decode_job(made).job_id


def _lines_of(body: bytes) -> list[tuple[int, bytes]]:
    """Return the lines that are not blank with their numbers, from 1; raises for too many."""
    lines = [(n, raw) for n, raw in enumerate(body.split(b"\n"), 1) if raw.strip()]
    if len(lines) > LINES_MAX:
        raise BodyTooLarge(
            f"The batch has {len(lines)} jobs; at most {LINES_MAX} are taken at once."
        )
    if not lines:
        raise BadRequest("The batch is empty: send one job a line, each a JSON object.")
    return lines


def _refused(number: int, error: CallerError) -> CallerError:
    """Return the error of one line as that of the whole batch, of the same kind."""
    field = f"line {number}" + (f": {error.field}" if error.field else "")
    detail = f"Line {number}: {error.detail} Nothing of this batch was taken (atomic=true)."
    return type(error)(detail, field=field, headers=error.headers)
