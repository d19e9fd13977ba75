"""Log the events that have no access line: expired leases, failed jobs, engines on and off.

What a request did is in the access log. These events are logged once they are durable, by a
listener like any other, with the ids as fields, so that one search finds all that happened to a job
or engine.
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
"""The kinds that are logged, and at which level; the others are many, and have access lines."""


def log_event(event: Event) -> None:
    """Log an event, if its kind is logged."""
    level = LEVELS.get(event.kind)
    if level is not None:
        why = f": {event.reason}" if event.reason else ""
        log.log(level, "%s%s", event.kind, why, extra=ids_of(event))


def ids_of(event: Event) -> dict[str, object]:
    """Return the ids of an event, as fields of a log line."""
    return {"job_id": event.job_id, "engine_id": event.engine_id, "attempt": event.attempt}
