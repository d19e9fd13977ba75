"""Encode events as JSON, and choose kinds of event by pattern."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import get_args

import msgspec

from distconvd.errors import ConfigError
from distconvd.model import mask_record
from distconvd.plugin_api import Event, EventKind

KINDS: tuple[str, ...] = get_args(EventKind)
ENDS = ("job.completed", "job.failed", "job.cancelled")
"""The kinds that listeners receive by default."""


def kinds_of(patterns: Iterable[str], table: str) -> frozenset[str]:
    """Return the kinds of event that patterns such as `job.*` choose.

    Raises `ConfigError`, naming the settings table, for a pattern that chooses none.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = {kind for kind in KINDS if fnmatchcase(kind, pattern)}
        if not fitting:
            raise ConfigError(
                f"[plugin.{table}] events: {pattern!r} matches no event;"
                f" expected some of {', '.join(KINDS)}"
            )
        chosen |= fitting
    return frozenset(chosen)


def ids_of(event: Event) -> dict[str, object]:
    """Return the ids of an event as fields of a log line."""
    return {"job_id": event.job_id, "engine_id": event.engine_id, "attempt": event.attempt}


def event_json(event: Event, **more: object) -> bytes:
    """Return an event as one JSON object, with the job's or engine's record inside.

    The secrets of URLs are masked: whoever receives events is not who submitted the job.
    """
    fields: dict[str, object] = {**more, **event._asdict()}
    if event.record is not None:
        fields["record"] = msgspec.Raw(event.record)
    return mask_record(msgspec.json.encode(fields))
