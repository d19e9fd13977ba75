"""The attempts that an engine holds right now, and why one of them is being stopped."""

from dataclasses import dataclass, field
from typing import Literal

import trio

from distconv_engine.attempts.context import Attempt
from distconvd.model import HeldJob, Job, Verdict

StopReason = Literal["cancelled", "released"]


@dataclass(slots=True, eq=False)
class Held:
    """One attempt, and the handle to stop it."""

    attempt: Attempt
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    stopped: StopReason | None = None

    @property
    def job(self) -> Job:
        """The job as it was assigned."""
        return self.attempt.job

    def stop(self, reason: StopReason) -> None:
        """Stop its ffmpeg and drop its partial output; the first reason stays."""
        self.stopped = self.stopped or reason
        self.scope.cancel()

    def obey(self, verdict: Verdict) -> None:
        """Do what the daemon says of it. `unknown` is a cancel: nobody will take its result."""
        if verdict.verdict != "keep":
            self.stop("cancelled")
        else:
            self.attempt.controls.set_paused(verdict.paused)


class Holdings:
    """All of them, by job and attempt."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, attempt: tuple[str, int]) -> bool:
        return attempt in self._held

    def add(self, held: Held) -> None:
        """Note one more."""
        self._held[held.job.job_id, held.job.attempt] = held

    def remove(self, held: Held) -> None:
        """Forget one."""
        del self._held[held.job.job_id, held.job.attempt]

    def told(self) -> list[HeldJob]:
        """Return what a heartbeat says of them."""
        return [
            HeldJob(held.job.job_id, held.job.attempt, held.attempt.tracker.now)
            for held in self._held.values()
        ]

    def obey(self, verdicts: list[Verdict]) -> None:
        """Apply the verdicts of a heartbeat's reply."""
        for verdict in verdicts:
            for held in list(self._held.values()):
                if held.job.job_id == verdict.job_id and verdict.attempt in (
                    None,
                    held.job.attempt,
                ):
                    held.obey(verdict)

    def are_still(self) -> bool:
        """Whether nothing is running: there are none, or all are paused."""
        return all(held.attempt.controls.paused for held in self._held.values())

    def stop_all(self, reason: StopReason) -> None:
        """Stop them all."""
        for held in list(self._held.values()):
            held.stop(reason)
