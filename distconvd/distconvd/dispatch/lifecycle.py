"""Define the lifecycles of jobs and engines as tables; any other transition raises.

The drawing in docs/protocol.md is generated from these tables by `drawing`; a test compares them.
"""

from enum import StrEnum

from distconvd.errors import LifecycleError
from distconvd.model import EngineState, JobStatus


class JobEvent(StrEnum):
    """What can happen to a job."""

    ASSIGN = "assign"
    COMPLETE = "complete"
    REQUEUE = "requeue"
    GIVE_UP = "give up"
    CANCEL = "cancel"
    RESUME = "readopt"
    RESTART = "restart"


_PENDING, _ASSIGNED = JobStatus.PENDING, JobStatus.ASSIGNED
_COMPLETED, _FAILED = JobStatus.COMPLETED, JobStatus.FAILED_PERMANENTLY
_CANCELLED = JobStatus.CANCELLED

JOB_TABLE: dict[tuple[JobStatus, JobEvent], JobStatus] = {
    (_PENDING, JobEvent.ASSIGN): _ASSIGNED,
    # Late work is still work: a report may arrive after the job went back to the queue.
    (_PENDING, JobEvent.COMPLETE): _COMPLETED,
    (_PENDING, JobEvent.REQUEUE): _PENDING,
    (_PENDING, JobEvent.GIVE_UP): _FAILED,
    (_PENDING, JobEvent.CANCEL): _CANCELLED,
    # The engine of a lost attempt is back before another engine started the job.
    (_PENDING, JobEvent.RESUME): _ASSIGNED,
    (_ASSIGNED, JobEvent.COMPLETE): _COMPLETED,
    (_ASSIGNED, JobEvent.REQUEUE): _PENDING,
    (_ASSIGNED, JobEvent.GIVE_UP): _FAILED,
    (_ASSIGNED, JobEvent.CANCEL): _CANCELLED,
    # Only a person starts an ended job again.
    (_COMPLETED, JobEvent.RESTART): _PENDING,
    (_FAILED, JobEvent.RESTART): _PENDING,
    (_CANCELLED, JobEvent.RESTART): _PENDING,
}
"""(status, event) to the next status."""


def next_status(status: JobStatus, event: JobEvent) -> JobStatus:
    """Return the status after `event`; raises `LifecycleError` if the table has none."""
    try:
        return JOB_TABLE[status, event]
    except KeyError:
        raise LifecycleError(f"a job that is {status} cannot {event}") from None


ENGINE_TABLE: tuple[tuple[str, EngineState], ...] = (
    ("silent", EngineState.OFFLINE),
    ("quarantined", EngineState.QUARANTINED),
    ("draining", EngineState.DRAINING),
    ("full", EngineState.BUSY),
    ("says it is not idle", EngineState.BUSY),
)
"""An engine's state is derived, never stored: the first true condition decides; otherwise idle."""


def engine_state(conditions: dict[str, bool]) -> EngineState:
    """Return the state for the named conditions of `ENGINE_TABLE` (all must be given)."""
    for condition, state in ENGINE_TABLE:
        if conditions[condition]:
            return state
    return EngineState.IDLE


def drawing() -> str:
    """Return both lifecycles as text, for the documents."""
    lines = ["job:"]
    lines += [f"  {old} --{event}--> {new}" for (old, event), new in JOB_TABLE.items()]
    lines.append("engine (the first that applies):")
    lines += [f"  {condition}: {state}" for condition, state in ENGINE_TABLE]
    return "\n".join([*lines, "  otherwise: idle", ""])
