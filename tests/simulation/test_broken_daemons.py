"""Prove that the simulation can fail: it must catch daemons with one injected bug each."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.simulation.replay import run
from tests.simulation.world import Size

from distconvd.api import engines as engines_api
from distconvd.core.ledger import Ledger
from distconvd.dispatch import Dispatcher, engines, reports, retries, submit
from distconvd.dispatch.assign import add_waiter
from distconvd.dispatch.matching import JobQueue
from distconvd.dispatch.runtime import Runtime
from distconvd.errors import Conflict
from distconvd.model import TERMINAL_STATUSES, FailureClass, Verdict

Patch = pytest.MonkeyPatch


def no_attempt_check(patch: Patch) -> None:
    """Any attempt number is accepted while the job is open."""

    def require_open(tx: Any, job: Any, *_: Any, **__: Any) -> Any:
        if job.status in TERMINAL_STATUSES:
            raise Conflict("it has ended")
        return job

    patch.setattr(reports, "_require_open", require_open)


def last_report_wins(patch: Patch) -> None:
    """A completion of a completed job always counts as a repetition."""
    patch.setattr(reports, "_was_completed_so", lambda job, report: job.status == "completed")


def a_rollback_is_incomplete(patch: Patch) -> None:
    """A failed commit's newest change stays in memory."""
    was = Dispatcher.rollback
    patch.setattr(
        Dispatcher, "rollback", lambda self, rollback_changes: was(self, rollback_changes[1:])
    )


def lost_costs_a_retry(patch: Patch) -> None:
    """A lost engine is charged to the job."""
    was = retries._is_charged
    patch.setattr(
        retries, "_is_charged",
        lambda tx, past, kind: kind is FailureClass.LOST or was(tx, past, kind),
    )  # fmt: skip


def published_too_early(patch: Patch) -> None:
    """Replies do not wait for their commit."""

    async def wait_durable(self: Any, batch: Any) -> bool:
        return True

    patch.setattr(Ledger, "_wait_durable", wait_durable)


def leases_too_short(patch: Patch) -> None:
    """A heartbeat does not renew leases: they run from the assignment."""
    was = Runtime.grant_lease

    def grant_lease(self: Any, job_id: str) -> None:
        if job_id not in self.leases:
            was(self, job_id)

    patch.setattr(Runtime, "grant_lease", grant_lease)


def priority_is_ignored(patch: Patch) -> None:
    """First come, first served, whatever the priority."""
    was = JobQueue.add
    patch.setattr(
        JobQueue, "add", lambda self, job: was(self, msgspec.structs.replace(job, priority=0))
    )


def keys_are_forgotten(patch: Patch) -> None:
    """An idempotency key is never recognised."""
    patch.setattr(submit, "_recall", lambda tx, key: None)


def every_claim_is_believed(patch: Patch) -> None:
    """A heartbeat may keep whatever it names."""
    patch.setattr(
        engines,
        "_verdict",
        lambda tx, entry, active: Verdict(active.job_id, active.attempt, "keep"),
    )


def polls_never_end(patch: Patch) -> None:
    """A long poll that ends is still counted as waiting."""
    patch.setattr(
        engines_api,
        "add_waiter",
        lambda tx, engine_id, by: add_waiter(tx, engine_id, by) if by > 0 else None,
    )


BUGS: dict[str, tuple[Callable[[Patch], None], str]] = {
    "no attempt check": (no_attempt_check, "not (409,)"),
    "last report wins": (last_report_wins, "contradiction"),
    "a rollback is incomplete": (a_rollback_is_incomplete, ""),
    "lost costs a retry": (lost_costs_a_retry, "retries, not"),
    "published too early": (published_too_early, "shown before it was durable"),
    "leases too short": (leases_too_short, "after its renewal"),
    "priority is ignored": (priority_is_ignored, "overtaken"),
    "keys are forgotten": (keys_are_forgotten, "doubled"),
    "every claim is believed": (every_claim_is_believed, "may keep"),
    "polls never end": (polls_never_end, ""),
}
"""The bugs, and a part of the fault that must be found."""


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_daemon_with_one_injected_bug_is_caught(bug: str, monkeypatch: Patch) -> None:
    inject, expected = BUGS[bug]
    inject(monkeypatch)
    faults = run(1, Size(jobs=250, engines=200, deaths=0, clients=10)).faults
    assert any(expected in fault for fault in faults), faults[:5]
