"""Describe the routes of `/jobs/…` as `edge.doc.Doc`."""

from typing import Annotated, Literal

from msgspec import Meta

from distconvd.api.batch import CONTENT_TYPE as NDJSON
from distconvd.api.openapi import examples
from distconvd.api.replies import WAIT_S_MAX
from distconvd.dispatch.why import Why
from distconvd.edge.doc import Answer, Doc, Parameter
from distconvd.errors import (
    CommitFailed,
    Conflict,
    NotAssigned,
    NotFound,
    PreconditionFailed,
    Unprocessable,
)
from distconvd.model import (
    Attempt,
    CompleteReport,
    FailReport,
    FailureClass,
    Job,
    JobPatch,
    JobStatus,
    Limits,
    ProgressReport,
    ReleaseReport,
    ReportReply,
    Submission,
    Verdict,
)

_KEY_PATTERN = r"^[!-~\xa1-\xac\xae-\xff][ -~\xa1-\xac\xae-\xff]*$"
"""What `admission.idempotency_of` accepts of a header: printable Latin-1, without a space in front."""

PAGE_MAX = 1000
"""Jobs on one page of a listing."""
Order = Literal["asc", "desc"]

ETAG = {"ETag": "The job's version, for `If-None-Match` and `If-Match`."}
PREFER = Parameter(
    "Prefer", "header", f"`wait=N` waits up to N seconds, at most {WAIT_S_MAX:g}.", str, "wait=30"
)
_IF_MATCH = Parameter("If-Match", "header", "Change the job only if this is its version.", str, "*")


def a_job(meaning: str, example: Job) -> dict[int, Answer]:
    """Return the answers of a route that answers with one job."""
    return {200: Answer(meaning, Job, headers=ETAG, example=example)}


_LINES = """\
{"line":1,"status":200,"job":{"job_id":"1704067200123456_0","status":"pending"}}
{"line":2,"status":400,"detail":"'target_codec' is missing or not a string.","field":"target_codec"}
"""

SUBMIT = Doc(
    {
        200: Answer(
            "The job, durable. With NDJSON: one line for each line, with its job or its error.",
            Job,
            maybe_headers=ETAG,
            others={NDJSON: _LINES},
            example=examples.PENDING,
        )
    },
    (Unprocessable, CommitFailed),
    (
        Parameter("dry_run", "query", "Answer as if submitted, but create no job.", bool),
        Parameter("strict", "query", "Reject unknown fields instead of ignoring them.", bool),
        Parameter("atomic", "query", "NDJSON: accept all lines or none.", bool),
        Parameter(
            "Idempotency-Key",
            "header",
            "The same key with the same body returns the first job again; another body is answered with 422.",
            Annotated[
                str, Meta(min_length=1, max_length=Limits.message_chars, pattern=_KEY_PATTERN)
            ],
            "holiday-2024",
        ),
    ),
    Submission,
    examples=(
        Submission("http://example.com/input.mp4", "h264", 100.5),
        Submission("file:///srv/media/holiday.mov", "vp9", labels={"who": "anna"}, priority=1),
    ),
)
LIST = Doc(
    {
        200: Answer(
            "The jobs.",
            list[Job],
            maybe_headers={"X-Next-Cursor": "The `cursor` of the next page, if there is one."},
            example=[examples.PENDING],
        )
    },
    parameters=(
        Parameter("status", "query", "Only those in this state.", JobStatus),
        Parameter("engine", "query", "Only those assigned to this engine, or last run on it."),
        Parameter(
            "codec", "query", "Only those with this codec, under any of its names.", str, "h265"
        ),
        Parameter(
            "label",
            "query",
            "Only those with this label, as `NAME:VALUE`.",
            Annotated[str, Meta(pattern=":")],
            "who:anna",
        ),
        Parameter(
            "limit",
            "query",
            "The number of jobs on a page; without it, all jobs are streamed.",
            Annotated[int, Meta(ge=1, le=PAGE_MAX)],
            100,
        ),
        Parameter(
            "order",
            "query",
            "`asc`: oldest first (the default); `desc`: newest first.",
            Order,
            "desc",
        ),
        Parameter(
            "cursor", "query", "The `X-Next-Cursor` of the previous page, with the same `order`."
        ),
    ),
)
GET = Doc(
    {
        **a_job("The job.", examples.ASSIGNED),
        304: Answer("The job still has the version in `If-None-Match`.", None, None, ETAG),
    },
    (NotFound,),
    (PREFER, Parameter("If-None-Match", "header", "A version that the caller already has.")),
)
PATCH = Doc(
    a_job("The job as it is now.", examples.PENDING),
    (NotFound, Conflict, PreconditionFailed, CommitFailed),
    (_IF_MATCH,),
    JobPatch,
    examples=(JobPatch(priority=2), JobPatch(paused=True, labels={"who": "anna"})),
)
CANCEL = Doc(
    a_job("The job, cancelled.", examples.COMPLETED),
    (NotFound, Conflict, PreconditionFailed, CommitFailed),
    (_IF_MATCH,),
)
RETRY = Doc(
    a_job("The job, pending again.", examples.PENDING),
    (NotFound, Conflict, PreconditionFailed, CommitFailed),
    (_IF_MATCH,),
)
ATTEMPTS = Doc(
    {200: Answer("The job's attempts, oldest first.", list[Attempt], example=[examples.ATTEMPT])},
    (NotFound,),
)
WHY = Doc(
    {
        200: Answer(
            "One sentence, and the facts behind it.",
            Why,
            example=Why(examples.JOB_ID, "pending", "No engine has registered yet."),
        )
    },
    (NotFound,),
)

_REPORTED = (NotAssigned, NotFound, Conflict, CommitFailed)
COMPLETE = Doc(
    {
        200: Answer(
            "The original's sentence and the job.",
            ReportReply,
            example=ReportReply(f"Job {examples.JOB_ID} marked as completed", examples.COMPLETED),
        )
    },
    _REPORTED,
    request=CompleteReport,
    examples=(CompleteReport("http://example.com/output.mp4", 1, result=examples.REPORTED_RESULT),),
)
FAIL = Doc(
    {
        200: Answer(
            "The original's sentence and the job.",
            ReportReply,
            example=ReportReply(f"Job {examples.JOB_ID} re-queued", examples.PENDING),
        )
    },
    _REPORTED,
    request=FailReport,
    examples=(FailReport("No space left on device", 1, error_class=FailureClass.TRANSIENT),),
)
RELEASE = Doc(
    FAIL.answers,
    _REPORTED,
    request=ReleaseReport,
    examples=(ReleaseReport(2, examples.ENGINE_ID, "the engine stops"),),
)
PROGRESS = Doc(
    {200: Answer("Whether to continue.", Verdict, example=examples.KEEP)},
    (NotAssigned, NotFound, Conflict),
    request=ProgressReport,
    examples=(ProgressReport(1, fraction=0.25, fps=48.0),),
)
