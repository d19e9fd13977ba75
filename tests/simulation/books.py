"""Keep the books: what each actor asked for, and its answers. They are the audit's evidence.

A try without a reply may have been carried out or not; one that got 200 was; one that got any other
answer was not. Nothing else is assumed.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

ENDED = frozenset({"completed", "failed_permanently", "cancelled"})


@dataclass
class Try:
    """One request that may change a job; `status` 0: no reply came."""

    kind: str
    job_id: str
    body: dict[str, Any]
    status: int = 0

    @property
    def may_count(self) -> bool:
        """Whether it may have been carried out, as far as its sender can know."""
        return self.status in (0, 200)


@dataclass
class Submitted:
    """One job as its client knows it, under its `uid` label."""

    body: dict[str, Any]
    tries: list[int] = field(default_factory=list[int])
    """The status of every try to submit it."""
    job_id: str | None = None
    acked_ms: int = 0
    """When the client knew of it, wall clock."""
    ops: list[Try] = field(default_factory=list[Try])
    """Its client's changes, in order: one client owns a job and waits for each answer."""


@dataclass
class Books:
    """The books of one run."""

    jobs: dict[str, Submitted] = field(default_factory=dict[str, Submitted])
    """By uid."""
    assignments: dict[tuple[str, int], set[str]] = field(
        default_factory=dict[tuple[str, int], set[str]]
    )
    """(job, attempt) to the engines to which it was assigned."""
    reports: dict[str, list[Try]] = field(default_factory=dict[str, list[Try]])
    """Job to the reports of engines on it, in the order of sending."""
    renewed: dict[tuple[str, int], list[int]] = field(
        default_factory=dict[tuple[str, int], list[int]]
    )
    """(job, attempt) to when requests were sent (wall ms) that certainly renewed its lease."""
    removed: set[str] = field(default_factory=set[str])
    """Engines that an operator removed, or tried to."""
    faults: list[str] = field(default_factory=list[str])
    """Replies that must not occur."""
    counts: Counter[str] = field(default_factory=Counter[str])
    """How often each thing happened, for the report, and to know that the run proved something."""

    def begin_report(self, kind: str, job_id: str, body: dict[str, Any]) -> Try:
        """Note a report before it is sent."""
        attempt = Try(kind, job_id, body)
        self.reports.setdefault(job_id, []).append(attempt)
        return attempt

    def expect(self, what: str, status: int, *right: int) -> None:
        """Note a fault unless the status is right; 503 (the store is down) always is."""
        self.counts[f"{what.split(' ')[0]} {status}"] += 1
        if status not in (*right, 503):
            self.faults.append(f"{what}: {status}, not {right}")
