"""Provide a typed client of the DistConv API, and the `distconv` command built on it.

    from distconv_client import Client, Submission

    with Client("http://127.0.0.1:8080", api_key="…") as client:
        job = client.submit(Submission("https://example.org/a.mkv", "h265"))
        job = client.wait(job.job_id)
        print(job.status, job.output_url)

Rules: arguments and results are structs of `distconvd.model` (or of `views`, for what only a reply
contains); every failure is a `ClientError` that says what was wrong, where, and what to do next; a
request is repeated only when that is safe.
"""

from distconv_client.api import Client
from distconv_client.errors import (
    BadInput,
    ClientError,
    Conflict,
    DaemonUnreachable,
    NotFound,
    Refused,
    StillRunning,
    Unauthorized,
    UnexpectedReply,
)
from distconv_client.follow import follow
from distconv_client.sources import submission_for
from distconv_client.views import EngineView, Why
from distconvd.model import (
    Attempt,
    Job,
    JobPatch,
    JobResult,
    JobStatus,
    Output,
    Progress,
    Submission,
    TranscodeOptions,
)

__all__ = [
    "Attempt",
    "BadInput",
    "Client",
    "ClientError",
    "Conflict",
    "DaemonUnreachable",
    "EngineView",
    "Job",
    "JobPatch",
    "JobResult",
    "JobStatus",
    "NotFound",
    "Output",
    "Progress",
    "Refused",
    "StillRunning",
    "Submission",
    "TranscodeOptions",
    "Unauthorized",
    "UnexpectedReply",
    "Why",
    "follow",
    "submission_for",
]
