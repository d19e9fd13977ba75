"""Submit jobs by dropping files into a spool, without a running daemon or a network.

A drop is durable immediately, and becomes a job when a daemon that serves the spool takes it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from distconv_client.errors import BadInput, ClientError
from distconv_spool import Drop, Outcome, SpoolError, State, wait
from distconv_spool import submit as drop_into
from distconvd.model import Job, JobStatus, Submission

WAIT_S = 60.0
"""How long one call waits; `wait_for_drops` calls again and again."""


def drop_all(spool: Path, submissions: Sequence[Submission]) -> Iterator[Drop]:
    """Drop one job after the other; each is durable when it is yielded.

    Raises `BadInput` for a folder that is not a spool, `ClientError` for an error of the disk.
    """
    for submission in submissions:
        try:
            yield drop_into(spool, msgspec.json.encode(submission))
        except SpoolError as error:
            raise BadInput(str(error)) from error  # it names the path, and what to do
        except OSError as error:
            raise ClientError(f"{spool}: {error.strerror or error}") from error


def wait_for_drops(spool: Path, drops: Sequence[Drop]) -> Iterator[Outcome]:
    """Yield the outcome of each drop, in order, when its job has ended or it was rejected."""
    for drop in drops:
        while True:
            outcome = wait(spool, drop, timeout_s=WAIT_S)
            if outcome.state in (State.FINISHED, State.REJECTED):
                yield outcome
                break


def job_of(outcome: Outcome) -> Job | None:
    """Return the ended job of a drop; None if the drop was rejected."""
    if outcome.record is None:
        return None
    return msgspec.convert(outcome.record, Job)


def has_succeeded(outcome: Outcome) -> bool:
    """Whether the drop became a job, and the job completed."""
    job = job_of(outcome)
    return job is not None and job.status is JobStatus.COMPLETED


def why_rejected(outcome: Outcome) -> str:
    """Return the daemon's reason for rejecting a drop."""
    problem = outcome.problem or {}
    return str(problem.get("detail") or problem.get("title") or "rejected")
