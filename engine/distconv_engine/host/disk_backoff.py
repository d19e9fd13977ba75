"""Remember which jobs did not fit on the disk, and pause before taking work again.

How large an output gets is known only once it exists. A job that filled the disk needs more than
was free when it started: until that much is free, neither it nor a larger job of its kind is
started again. And since the daemon would assign it again and again, the engine wants no job at all
for a while, twice as long each time, unless space becomes free earlier; its heartbeats say
`disk-full`. The pause is limited, because smaller jobs may still fit.

A job that did not fit on a disk of its own, which it names for its output, waits alone: the daemon
assigns it later, and no other job needs that disk.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from distconv_engine.failures import InsufficientSpace
from distconv_engine.host.metrics import free_bytes
from distconvd.model import Job

MB = 1e6
PAUSE_MAX_S = 300.0
_NEEDS_MAX = 100
"""How many jobs are remembered."""
_CLEARLY = 0.01
"""Free space fluctuates by itself, by less than this fraction."""


@dataclass(frozen=True, slots=True)
class _Need:
    job: Job
    place: Path
    needed: float
    is_shared: bool
    """Whether every job needs that disk."""

    @property
    def is_met(self) -> bool:
        return free_bytes(self.place) >= self.needed

    def applies_to(self, job: Job) -> bool:
        """Whether `job` needs as much: the same job, or one no smaller with the same settings."""
        if job.job_id == self.job.job_id:
            return True
        if not self.is_shared:
            return False
        is_alike = (job.target_codec, job.options) == (self.job.target_codec, self.job.options)
        return is_alike and job.job_size >= self.job.job_size > 0


@dataclass(slots=True)
class SpaceBackoff:
    """The jobs that did not fit, and the pause after the last of them."""

    pause_s: float
    """The length of the first pause."""
    clock: Callable[[], float] = time.monotonic
    _needs: dict[str, _Need] = field(default_factory=dict[str, _Need])
    _last: _Need | None = None
    _until: float = 0.0
    _times: int = 0

    def note_full(self, job: Job, place: Path, free: float) -> None:
        """Remember that `job` needs clearly more than the `free` bytes that there were."""
        self.note(job, place, free + max(MB, free * _CLEARLY))

    def note(self, job: Job, place: Path, needed: float, *, is_shared: bool = True) -> None:
        """Remember that `job` needs `needed` bytes free at `place`, more than there are.

        Unless every job needs that disk (`is_shared`), the engine makes no pause.
        """
        need = _Need(job, place, needed, is_shared)
        self._needs.pop(job.job_id, None)
        self._needs[job.job_id] = need
        while len(self._needs) > _NEEDS_MAX:
            del self._needs[next(iter(self._needs))]
        if not is_shared:
            return
        self._last = need
        self._until = self.clock() + min(PAUSE_MAX_S, self.pause_s * 2.0 ** min(self._times, 30))
        self._times += 1

    def is_over(self) -> bool:
        """Whether the engine may want work again: there is space, or the pause has passed."""
        return self._last is None or self.clock() >= self._until or self._last.is_met

    def relieve(self, job: Job) -> None:
        """Note that `job` did fit: the next pause is short again."""
        self._needs.pop(job.job_id, None)
        self._times = 0

    def check(self, job: Job) -> None:
        """Raise `InsufficientSpace` for a job that is known not to fit."""
        for need in self._needs.values():
            if need.applies_to(job) and not need.is_met:
                raise InsufficientSpace(
                    f"The disk of {need.place} has {free_bytes(need.place) / MB:.0f} MB free, which was "
                    f"too little for {_which(need.job, job)}: it needs more than "
                    f"{need.needed / MB:.0f} MB.",
                    place=need.place,
                    needed=need.needed,
                )


def _which(known: Job, job: Job) -> str:
    return "this job" if known.job_id == job.job_id else f"{known.job_id}, which is no larger"
