"""Keep what is true only while the daemon runs: the clock, leases, timers and deliveries.

Nothing here is stored; after a restart it begins anew from the records. `State` owns it, so that
whatever changes a record can change its deadlines too.
"""

from collections.abc import Iterable

from distconvd.dispatch.decision import Instant
from distconvd.dispatch.settings import DispatchSettings
from distconvd.dispatch.timers import TimerKind, Timers
from distconvd.dispatch.waits import Waits
from distconvd.model import Job

ROUNDING_S = 0.0005
"""Records state milliseconds."""


class Runtime:
    """See the module.

    Args:
        settings: durations.
        now: the moment of the start.
    """

    def __init__(self, settings: DispatchSettings, now: Instant) -> None:
        self._settings = settings
        self.now = now
        """The moment of the present decision."""
        self.started_s = now.mono_s
        self.clock_offset_s = now.wall_ms / 1000 - now.mono_s
        """How far the wall clock was ahead of the monotonic one when they were last compared."""
        self.timers = Timers()
        self._waits = Waits()
        self.leases: dict[str, float] = {}
        """Job id to when the lease of its running attempt expires (monotonic seconds)."""
        self.assigned_s: dict[str, float] = {}
        """Job id to when its running attempt was assigned by this daemon (monotonic seconds)."""
        self.unacked: dict[str, dict[str, None]] = {}
        """Engine id to its unacknowledged assignments."""
        self.last_id_us = 0
        self.id_counter = 0
        self.leases_expired = 0

    # ------------------------------------------------------------------------------- the clock

    def wall_to_mono_s(self, wall_ms: int) -> float:
        """Return when, on the monotonic clock, the wall clock will show `wall_ms`."""
        return self.now.mono_s + (wall_ms - self.now.wall_ms) / 1000

    def remind_at_wall(self, wall_ms: int, kind: TimerKind, key: str) -> None:
        """Remind when the wall clock will show `wall_ms`."""
        self.timers.add(self.wall_to_mono_s(wall_ms), kind, key)

    # ----------------------------------------------------------------------------------- waits

    def delay_end_s(self, job: Job) -> float:
        """Return when a job's `not_before` is over: a backoff by the monotonic clock, a moment that a
        person chose when the wall clock shows it."""
        stated_ms = job.not_before or 0
        end_s = self._waits.known_end_s("backoff", job.job_id, stated_ms)
        if end_s is not None:
            return end_s
        span_s = (stated_ms - job.updated_at) / 1000
        if job.attempt > job.base_attempt and 0 < span_s <= self._settings.retry_backoff_max_s:
            return self._waits.end_s("backoff", job.job_id, stated_ms, span_s, self.now)
        return self.wall_to_mono_s(stated_ms)

    def is_delayed(self, job: Job) -> bool:
        """Whether a job's `not_before` is still to come."""
        return job.not_before is not None and self.left_s(self.delay_end_s(job)) > 0

    def is_backing_off(self, job: Job) -> bool:
        """Whether a delayed job waits for a backoff, not for a moment that a person chose."""
        stated_ms = job.not_before or 0
        return self._waits.known_end_s("backoff", job.job_id, stated_ms) is not None

    def elsewhere_end_s(self, job: Job) -> float:
        """Return until when a retry waits for an engine that has not failed the job."""
        # A backoff is not a wait for another engine: the time counts from its end.
        since_ms = max(job.updated_at, job.not_before or 0)
        longest_s = self._settings.retry_elsewhere_s
        stated_ms = since_ms + int(longest_s * 1000)
        return self._waits.end_s("elsewhere", job.job_id, stated_ms, longest_s, self.now)

    def quarantine_end_s(self, engine_id: str, quarantined_until: int) -> float:
        """Return when an engine's quarantine is over, whatever happens to the wall clock."""
        longest_s = self._settings.quarantine_s
        return self._waits.end_s("quarantine", engine_id, quarantined_until, longest_s, self.now)

    def watch_quarantine(self, engine_id: str, quarantined_until: int | None) -> None:
        """Remind of the end of a quarantine, if there is one."""
        if quarantined_until is None:
            self._waits.forget("quarantine", engine_id)
        else:
            end_s = self.quarantine_end_s(engine_id, quarantined_until)
            self.timers.add(end_s, "quarantine", engine_id)

    def left_s(self, end_s: float) -> float:
        """Return how long it is until then; 0 if it is over."""
        left_s = end_s - self.now.mono_s
        return left_s if left_s > ROUNDING_S else 0.0

    def forget_waits(self, job_id: str) -> None:
        """Forget what a job waited for."""
        self._waits.forget("backoff", job_id)
        self._waits.forget("elsewhere", job_id)

    def new_job_id(self) -> str:
        """Return `{microseconds}_{counter}`, unique also when the clock steps back."""
        self.last_id_us = max(self.now.wall_ms * 1000, self.last_id_us + 1)
        counter = self.id_counter
        self.id_counter += 1
        return f"{self.last_id_us}_{counter}"

    # ---------------------------------------------------------------------------------- leases

    def grant_lease(self, job_id: str) -> None:
        """Let the running attempt of a job live for another lease from now."""
        grace_ends_s = self.started_s + self._settings.start_grace_s
        until_s = max(self.now.mono_s + self._settings.lease_s, grace_ends_s)
        self.leases[job_id] = until_s
        self.timers.add(until_s, "lease", job_id)

    def end_lease(self, job_id: str) -> None:
        """Forget the lease of a job, if it has one."""
        self.leases.pop(job_id, None)
        self.assigned_s.pop(job_id, None)

    def watch_engine(self, engine_id: str, quarantined_until: int | None) -> None:
        """Remind of an engine that a start or a rollback has brought back: its silence and the end
        of its quarantine (ms since the epoch)."""
        grace_s = max(self._settings.engine_timeout_s, self._settings.start_grace_s)
        self.timers.add(self.started_s + grace_s, "engine", engine_id)
        self.watch_quarantine(engine_id, quarantined_until)

    # ------------------------------------------------------------ unacknowledged assignments

    def note_unacked(self, engine_id: str, job_ids: Iterable[str]) -> None:
        """Note assignments that no reply has carried to the engine yet."""
        self.unacked.setdefault(engine_id, {}).update((job_id, None) for job_id in job_ids)

    def acknowledge(self, engine_id: str | None, job_id: str) -> None:
        """Note that an engine has an assignment, or that it no longer matters."""
        if engine_id is not None:
            self.unacked.get(engine_id, {}).pop(job_id, None)

    def forget_engine(self, engine_id: str) -> None:
        """Forget all assignments that an engine has not acknowledged."""
        self.unacked.pop(engine_id, None)
