"""A log line for each event: what happened to which job, on which engine, in the daemon's own log.

    [plugin.event-log]
    events = ["job.submitted", "job.failed", "engine.*"]

So whatever keeps the log (journald, a collector of JSON lines) keeps an account of what happened, too:
`journalctl -u distconvd | grep job_id=1763840000000000_1`. Nothing is logged without the setting.
"""

import logging
from functools import cache

import msgspec

from distconv_plugins._events import kinds_of
from distconvd import hookimpl
from distconvd.dispatch import Event
from distconvd.hookspecs import PluginContext, SettingsRegistrar

NAME = "event-log"

log = logging.getLogger("distconvd.events")


class EventLogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Table `[plugin.event-log]`."""

    events: list[str] = []
    """Kinds of event, or patterns such as `engine.*`."""

    def __post_init__(self) -> None:
        kinds_of(self.events, NAME)


@hookimpl
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare `[plugin.event-log]`."""
    registrar.add(NAME, EventLogSettings)


@hookimpl
def distconvd_event(event: Event, context: PluginContext) -> None:
    """Log the event, if it is of a kind that was asked for."""
    wanted = context.settings(NAME, EventLogSettings).events
    if not wanted or event.kind not in _kinds(tuple(wanted)):
        return
    fields = {
        "job_id": event.job_id,
        "engine_id": event.engine_id,
        "attempt": event.attempt,
        "reason": event.reason,
    }
    log.info("%s", event.kind, extra=fields)


@cache
def _kinds(patterns: tuple[str, ...]) -> frozenset[str]:
    return kinds_of(patterns, NAME)
