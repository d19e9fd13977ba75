"""Keep what is true only while the daemon runs: the clock, leases, timers and deliveries.

Nothing here is stored; after a restart it begins anew from the records. `State` owns it, so that
whatever changes a record can change its deadlines too.
"""

from collections.abc import Iterable

from distconvd.dispatch.decision import Instant
from distconvd.dispatch.settings import DispatchSettings
from distconvd.dispatch.timers import TimerKind, Timers


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
        self.leases: dict[str, float] = {}
        """Job id to when the lease of its running attempt expires (monotonic seconds)."""
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

    def watch_engine(self, engine_id: str, quarantined_until: int | None) -> None:
        """Remind of an engine that a start or a rollback has brought back: its silence and the end
        of its quarantine (ms since the epoch)."""
        grace_s = max(self._settings.engine_timeout_s, self._settings.start_grace_s)
        self.timers.add(self.started_s + grace_s, "engine", engine_id)
        if quarantined_until is not None:
            self.remind_at_wall(quarantined_until, "quarantine", engine_id)

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
