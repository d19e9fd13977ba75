"""A log line for what no request tells: leases that end, jobs that fail, engines that come and go.

What a request did has its access line. These are told once they are durable, as any listener is, with
the ids as fields, so that one search finds all that happened to a job or an engine.
"""

import logging

from distconvd.dispatch import Event

log = logging.getLogger("distconvd.events")

LEVELS = {
    "job.requeued": logging.INFO,
    "job.failed": logging.WARNING,
    "engine.registered": logging.INFO,
    "engine.online": logging.INFO,
    "engine.removed": logging.INFO,
    "engine.offline": logging.WARNING,
    "engine.quarantined": logging.WARNING,
}
"""The kinds that are told, and how loudly; the others are many, and have access lines."""


def log_event(event: Event) -> None:
    """Write the line of an event, where it has one."""
    level = LEVELS.get(event.kind)
    if level is not None:
        why = f": {event.reason}" if event.reason else ""
        log.log(level, "%s%s", event.kind, why, extra=ids_of(event))


def ids_of(event: Event) -> dict[str, object]:
    """Return what an event is about, as fields of a log line."""
    return {"job_id": event.job_id, "engine_id": event.engine_id, "attempt": event.attempt}
