"""Take engines' reports on jobs: one table and one rule, for HTTP and for websockets.

Who may report: a connection shows which engine sends, if its key is for one engine or if it is that
engine's websocket. A sender that is known reports in its own name only. On jobs that are not its own
and never were, it may not report at all if its key is for it alone; if any key could have opened the
connection, the attempt number decides, and a report without a number is refused. What a connection
without a known sender says counts as it stands, as it does for the original's engines.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import msgspec

from distconvd.api.decode import decode
from distconvd.core.ledger import Ledger
from distconvd.dispatch import reports
from distconvd.dispatch.transaction import Transaction
from distconvd.errors import Conflict, NotAssigned
from distconvd.model import (
    CompleteReport,
    FailReport,
    JobStatus,
    ProgressReport,
    ReleaseReport,
    mask_record,
)

Report = CompleteReport | FailReport | ReleaseReport | ProgressReport
ReportName = Literal["complete", "fail", "release", "progress"]
R = TypeVar("R", CompleteReport, FailReport, ReleaseReport, ProgressReport)


class Sender(NamedTuple):
    """Who sends reports over a connection."""

    engine_id: str | None = None
    """None: the connection does not show it."""
    has_own_key: bool = False
    """The key of the connection is for this engine alone."""
    check: Callable[[str], None] = lambda engine_id: None
    """Raises if a report of this sender may not name that engine."""
    show: Callable[[bytes], bytes] = mask_record
    """Returns a job's record as the sender may see it."""


class ReportAnswer(msgspec.Struct, frozen=True):
    """`distconvd.model.ReportReply`, with the job as it is stored."""

    message: str
    job: msgspec.Raw


@dataclass(frozen=True)
class Reporting(Generic[R]):
    """How one kind of report is taken."""

    body: type[R]
    apply: Callable[[Transaction, str, R], msgspec.Struct]
    """Applies it and returns the reply."""


def _with_job(apply: Callable[[Transaction, str, R], str]) -> Callable[[Transaction, str, R], Any]:
    """Return what answers with the original's sentence and the job as it is now."""

    def answer(tx: Transaction, job_id: str, report: R) -> ReportAnswer:
        return ReportAnswer(apply(tx, job_id, report), msgspec.Raw(tx.job_view(job_id)))

    return answer


REPORTS: dict[ReportName, Reporting[Any]] = {
    "complete": Reporting(CompleteReport, _with_job(reports.complete)),
    "fail": Reporting(FailReport, _with_job(reports.fail)),
    "release": Reporting(ReleaseReport, _with_job(reports.release)),
    "progress": Reporting(ProgressReport, reports.progress),
}


def read_report(name: ReportName, body: bytes, sender: Sender) -> Report:
    """Return a report in the name of its sender; raises `BadRequest`, and what `sender.check` does."""
    report: Report = decode(body, REPORTS[name].body)
    if sender.engine_id is None:
        return report
    if report.engine_id is not None:
        sender.check(report.engine_id)
    return msgspec.structs.replace(report, engine_id=sender.engine_id)


async def apply_report(
    ledger: Ledger, name: ReportName, job_id: str, report: Report, sender: Sender
) -> msgspec.Struct:
    """Apply a report and return the reply, once it is durable.

    Raises `NotFound`, `NotAssigned` if the sender may not report on this job, and `Conflict`.
    """

    def command(tx: Transaction) -> msgspec.Struct:
        _require_own_job(tx, job_id, report, sender)
        return REPORTS[name].apply(tx, job_id, report)

    answer = await ledger.execute(command)
    if not isinstance(answer, ReportAnswer):
        return answer
    return ReportAnswer(answer.message, msgspec.Raw(sender.show(bytes(answer.job))))


def _require_own_job(tx: Transaction, job_id: str, report: Report, sender: Sender) -> None:
    """Raise `NotAssigned` if the sender may not report on this job; see the module.

    If the job once was its own, the dispatcher decides: late work may still count, stale work is
    `Conflict`. A report without a number would count as one on the attempt that runs now, so it is
    `Conflict` while that is another engine's.
    """
    engine_id = sender.engine_id
    if engine_id is None or not (sender.has_own_key or report.attempt is None):
        return
    if tx.job(job_id).assigned_engine == engine_id:
        return
    if all(attempt.engine_id != engine_id for attempt in tx.state.history(job_id).attempts):
        raise NotAssigned(f"Job {job_id} is not assigned to engine {engine_id!r} and never was.")
    if report.attempt is None and tx.job(job_id).status is JobStatus.ASSIGNED:
        raise Conflict(
            f"Job {job_id} is assigned to another engine by now; a report of engine {engine_id!r} on it"
            " needs the number of its attempt."
        )
