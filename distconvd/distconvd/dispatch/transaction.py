"""Give a command its scope: its changes, how to undo them, and its events.

A command that raises leaves no trace: its changes are rolled back immediately.
"""

from typing import Any, Protocol

import msgspec

from distconvd.dispatch.decision import Event, EventKind
from distconvd.dispatch.lifecycle import JobEvent, next_status
from distconvd.dispatch.matching import AvailableEngines
from distconvd.dispatch.records import encode
from distconvd.dispatch.settings import HISTORY_MAX, DispatchSettings
from distconvd.dispatch.state import State
from distconvd.model import Attempt, AttemptHistory, EngineRecord, Job
from distconvd.policy import Hold, Place
from distconvd.store import Change, Table


class Placing(Protocol):
    """Decides which engine gets a job; always with a valid answer, see `guarded_policy`."""

    def place(self, job: Job, engines: AvailableEngines, now_ms: int) -> Place | Hold:
        """See `distconvd.policy.Policy`."""
        ...


class Transaction:
    """The scope of one command; see the module."""

    __slots__ = (
        "changes",
        "events",
        "now",
        "policy",
        "read_set",
        "reads_all",
        "rollback_changes",
        "runtime",
        "settings",
        "state",
    )  # fmt: skip

    def __init__(self, state: State, settings: DispatchSettings, policy: Placing) -> None:
        self.state = state
        self.settings = settings
        self.policy = policy
        self.runtime = state.runtime
        self.now = state.runtime.now
        self.changes: list[Change] = []
        self.rollback_changes: list[Change] = []
        self.events: list[Event] = []
        self.read_set: set[tuple[Table, str]] = set()
        self.reads_all = False

    def job(self, job_id: str) -> Job:
        """Return a job and note that the reply depends on it; raises `NotFound`."""
        self.read_set.add(("jobs", job_id))
        return self.state.job(job_id)

    def job_view(self, job_id: str) -> bytes:
        """Return a job as on the wire and note that the reply depends on it."""
        self.read_set.add(("jobs", job_id))
        return self.state.job_view(job_id)

    def put(
        self, table: Table, key: str, record: bytes | None, old: Job | None = None,
        new: Job | None = None,
    ) -> None:  # fmt: skip
        """Put or delete one record, in memory now and on disk at the commit."""
        before: dict[str, bytes] = getattr(self.state, table)
        change = Change(table, key, record)
        self.rollback_changes.append(Change(table, key, before.get(key)))
        self.changes.append(change)
        self.state.apply(change, old, new)

    def put_job(self, old: Job | None, new: Job) -> Job:
        """Store a new version of a job; `old` is the version that it was made from."""
        self.put("jobs", new.job_id, encode(new), old, new)
        return new

    def move_job(self, job: Job, event: JobEvent, **fields: Any) -> Job:
        """Move a job along the lifecycle, with other fields changed in the same record."""
        status = next_status(job.status, event)
        return self.edit_job(job, status=status, **fields)

    def edit_job(self, job: Job, **fields: Any) -> Job:
        """Change fields of a job; `updated_at` follows."""
        new = msgspec.structs.replace(job, updated_at=self.now.wall_ms, **fields)
        return self.put_job(job, new)

    def edit_engine(self, record: EngineRecord, **fields: Any) -> EngineRecord:
        """Change fields of an engine's record; writes nothing if nothing differs."""
        new = msgspec.structs.replace(record, **fields)
        if new != record:
            self.put("engines", new.engine_id, encode(new))
        return new

    def close_attempt(self, job: Job, attempt: Attempt) -> None:
        """Append an ended attempt to its job's history."""
        history = self.state.history(job.job_id)
        attempts = [*history.attempts, attempt]
        surplus = max(0, len(attempts) - HISTORY_MAX)
        shortened = AttemptHistory(job.job_id, attempts[surplus:], history.dropped + surplus)
        self.put("attempts", job.job_id, encode(shortened))

    def emit(
        self, kind: EventKind, job: Job | None = None, *, engine_id: str | None = None,
        reason: str | None = None,
    ) -> None:  # fmt: skip
        """Add an event, to be published after the commit."""
        record = None
        if job is not None:
            record = self.state.jobs.get(job.job_id)
            engine_id = engine_id or job.assigned_engine
        elif engine_id is not None:
            record = self.state.engines.get(engine_id)
        self.events.append(
            Event(
                kind,
                self.now.wall_ms,
                job.job_id if job else None,
                engine_id,
                job.attempt if job else None,
                record,
                reason,
            )
        )
