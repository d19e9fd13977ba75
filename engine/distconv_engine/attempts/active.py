"""Track the engine's active attempts, and why one of them is being stopped."""

from dataclasses import dataclass, field
from typing import Literal

import trio

from distconv_engine.attempts.context import Attempt
from distconvd.model import HeldJob, Job, Verdict

StopReason = Literal["cancelled", "released"]


@dataclass(slots=True, eq=False)
class ActiveAttempt:
    """One attempt, and the handle to stop it."""

    attempt: Attempt
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    stopped: StopReason | None = None

    @property
    def job(self) -> Job:
        """The job as it was assigned."""
        return self.attempt.job

    def stop(self, reason: StopReason) -> None:
        """Stop its ffmpeg and discard its partial output; the first reason is kept."""
        self.stopped = self.stopped or reason
        self.scope.cancel()

    def apply(self, verdict: Verdict) -> None:
        """Apply the daemon's verdict. `unknown` cancels: nobody would accept the result."""
        if verdict.verdict != "keep":
            self.stop("cancelled")
        else:
            self.attempt.controls.set_paused(verdict.paused)


class ActiveAttempts:
    """All active attempts, by job and attempt number."""

    def __init__(self) -> None:
        self._active: dict[tuple[str, int], ActiveAttempt] = {}

    def __len__(self) -> int:
        return len(self._active)

    def __contains__(self, attempt: tuple[str, int]) -> bool:
        return attempt in self._active

    def add(self, active: ActiveAttempt) -> None:
        """Add an attempt that has started."""
        self._active[active.job.job_id, active.job.attempt] = active

    def remove(self, active: ActiveAttempt) -> None:
        """Remove an attempt that has ended."""
        del self._active[active.job.job_id, active.job.attempt]

    def for_heartbeat(self) -> list[HeldJob]:
        """Return what a heartbeat reports of them."""
        return [
            HeldJob(active.job.job_id, active.job.attempt, active.attempt.tracker.now)
            for active in self._active.values()
        ]

    def apply(self, verdicts: list[Verdict]) -> None:
        """Apply the verdicts of a heartbeat's reply."""
        for verdict in verdicts:
            for active in list(self._active.values()):
                if active.job.job_id == verdict.job_id and verdict.attempt in (
                    None,
                    active.job.attempt,
                ):
                    active.apply(verdict)

    def are_all_paused(self) -> bool:
        """Whether nothing is running: every attempt is paused, or there is no attempt."""
        return all(active.attempt.controls.paused for active in self._active.values())

    def stop_all(self, reason: StopReason) -> None:
        """Stop every active attempt."""
        for active in list(self._active.values()):
            active.stop(reason)
