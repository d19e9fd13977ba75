"""Append each event to a file, as a line of JSON.

    [plugin.event-log]
    file = "/var/log/distconv/events.ndjson"
    events = ["job.submitted", "job.completed", "job.failed"]

A line contains the event and the job's or engine's record at that moment. It is written
synchronously, while the daemon waits (some ten microseconds on a local disk), and not fsynced: what
must not be missed is to be read from the jobs. The file is opened for each line, so that it may be
moved away at any time (logrotate). A disk error is logged and counted like the failure of any
listener, and delays nothing.
"""

import os
from functools import cache

import msgspec

from distconv_plugins.shared.events import event_json, kinds_of
from distconvd import hookimpl
from distconvd.hookspecs import PluginContext, SettingsRegistrar
from distconvd.plugin_api import Event

NAME = "event-log"
FILE_MODE = 0o640
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_KINDS = (
    "job.submitted",
    "job.assigned",
    "job.completed",
    "job.failed",
    "job.cancelled",
    "engine.*",
)


class EventLogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Table `[plugin.event-log]`; without a file nothing is written."""

    file: str | None = None
    """Where the lines go. A missing file is created, a missing folder is not."""
    events: list[str] = msgspec.field(default_factory=lambda: list(_KINDS))
    """Kinds of event, or patterns such as `engine.*`."""

    def __post_init__(self) -> None:
        kinds_of(self.events, NAME)


@hookimpl
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare `[plugin.event-log]`."""
    registrar.add(NAME, EventLogSettings)


@hookimpl
def distconvd_event(event: Event, context: PluginContext) -> None:
    """Write the event's line, if its kind was chosen; raises `OSError`."""
    settings = context.settings(NAME, EventLogSettings)
    if settings.file is None or event.kind not in _chosen(tuple(settings.events)):
        return
    descriptor = os.open(settings.file, _FLAGS, FILE_MODE)
    try:
        # In one call, so that the lines of two daemons never mix.
        os.write(descriptor, event_json(event) + b"\n")
    finally:
        os.close(descriptor)


@cache
def _chosen(patterns: tuple[str, ...]) -> frozenset[str]:
    return kinds_of(patterns, NAME)
