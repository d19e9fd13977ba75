"""Limit engines and priorities to days and hours, around any other policy.

An engine that a window names, by a pattern of its id or by a tag, is used only while one of its
windows is open; an engine that no window names, always. The same applies to jobs, by priority. So
desktops encode at night, and batch jobs wait for the weekend. Within the windows another policy
chooses. A job that waits for a window is reconsidered in the minute when one opens; a running job
continues when its window closes.

Hours are local time of `timezone`, also on the days when the clock changes. A window over midnight
belongs to the day on which it begins.
"""

from fnmatch import fnmatchcase

import msgspec

from distconv_plugins.shared.open_engines import OpenEngines
from distconv_plugins.time_window.week import DAYS, Day, Week, minutes_of
from distconvd import hookimpl
from distconvd.errors import ConfigError
from distconvd.hookspecs import PluginContext, PolicyFactory, Registrar, SettingsRegistrar
from distconvd.model import Job
from distconvd.policy import EngineInfo, Hold, IdleEngines, Place, Policy, SharingPolicy

NAME = "time-window"


class EngineWindow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `[[plugin.time-window.engines]]`: when these engines may be given jobs."""

    ids: list[str] = []
    """Patterns of engine ids, such as `desk-*`."""
    tags: list[str] = []
    """Engines with one of these tags."""
    days: list[Day] = msgspec.field(default_factory=lambda: list(DAYS))
    hours: str = "00:00-24:00"


class PriorityWindow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `[[plugin.time-window.priorities]]`: when jobs of these priorities may begin."""

    priorities: list[int]
    days: list[Day] = msgspec.field(default_factory=lambda: list(DAYS))
    hours: str = "00:00-24:00"


class TimeWindowSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Table `[plugin.time-window]`."""

    policy: str = "size-aware"
    """The policy that chooses within the windows."""
    timezone: str = "UTC"
    """The time zone of the hours, such as `Europe/Berlin`."""
    engines: list[EngineWindow] = []
    priorities: list[PriorityWindow] = []


class TimeWindow:
    """See the module.

    Args:
        settings: the windows.
        inner: chooses within them.
    """

    def __init__(self, settings: TimeWindowSettings, inner: Policy) -> None:
        self._inner = inner
        self._engines: list[tuple[EngineWindow, int]] = []
        self._priorities: dict[int, int] = {}
        try:
            self._week = Week(settings.timezone)
            for window in settings.engines:
                self._engines.append((window, minutes_of(window.days, window.hours)))
            for each in settings.priorities:
                for priority in each.priorities:
                    minutes = minutes_of(each.days, each.hours)
                    self._priorities[priority] = self._priorities.get(priority, 0) | minutes
        except ValueError as error:
            raise ConfigError(f"[plugin.{NAME}] {error}") from error

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        """Ask the other policy, with only those engines whose windows are open."""
        minutes = self._priorities.get(job.priority, -1)
        if not minutes >> self._week.minute_of(now_ms) & 1:
            reason = f"jobs of priority {job.priority} wait for their hours"
            return Hold(reason, self._week.opens_at_ms(minutes, now_ms))
        present = OpenEngines(engines, lambda engine: self._is_open(engine, now_ms))
        if next(iter(present), None) is None:
            opens = [self._week.opens_at_ms(self._minutes_of(one), now_ms) for one in engines]
            first = min((at for at in opens if at is not None), default=None)
            return Hold("the idle engines that could take the job are outside their hours", first)
        return self._inner.place(job, present, now_ms)

    def _is_open(self, engine: EngineInfo, now_ms: int) -> bool:
        return bool(self._minutes_of(engine) >> self._week.minute_of(now_ms) & 1)

    def _minutes_of(self, engine: EngineInfo) -> int:
        """Return when an engine may be used; -1 (all bits) for always."""
        windows = [minutes for window, minutes in self._engines if _names(window, engine)]
        union = 0
        for minutes in windows:
            union |= minutes
        return union if windows else -1


class SharingTimeWindow(TimeWindow):
    """A time window around a policy that divides the queue into shares."""

    def __init__(self, settings: TimeWindowSettings, inner: SharingPolicy) -> None:
        super().__init__(settings, inner)
        self.share = inner.share


@hookimpl
def distconvd_register_policies(registrar: Registrar[PolicyFactory]) -> None:
    """Register the policy."""
    registrar.add(NAME, _make)


@hookimpl
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare `[plugin.time-window]`."""
    registrar.add(NAME, TimeWindowSettings)


def _make(context: PluginContext) -> TimeWindow:
    settings = context.settings(NAME, TimeWindowSettings)
    inner = context.policy(settings.policy)
    if isinstance(inner, SharingPolicy):
        return SharingTimeWindow(settings, inner)
    return TimeWindow(settings, inner)


def _names(window: EngineWindow, engine: EngineInfo) -> bool:
    by_id = any(fnmatchcase(engine.engine_id, pattern) for pattern in window.ids)
    return by_id or not engine.tags.isdisjoint(window.tags)
