"""Log one line per event to stderr, as text for people or as JSON for machines.

The secrets of URLs are masked.

An event is a short sentence that never changes, so that it can be searched for; what varies is in
the fields (`job_id`, `attempt`, `engine_id`, …).

Where stderr is systemd's journal, each line begins with its priority (`<3>`): the journal strips it
from the line and stores it, so that `journalctl -p err` finds what `grep ERROR` does. The daemon
has its own such module: of its package the engine imports `distconvd.model` only.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO, cast

from distconvd.model import mask_urls

LogFormat = Literal["text", "json"]
STDERR = 2
_PRIORITIES = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>"))
_LOGGER = logging.getLogger("distconv_engine")


class Log:
    """A logger that carries fields; `bind` makes one that carries more."""

    def __init__(self, **fields: object) -> None:
        self._fields = fields

    def bind(self, **fields: object) -> "Log":
        """Return a log that adds `fields` to every event."""
        return Log(**{**self._fields, **fields})

    def debug(self, event: str, **fields: object) -> None:
        """Log an event that only a developer needs."""
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Log an event of normal work."""
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log something that was handled but should not happen often."""
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Log something that a person should look at."""
        self._emit(logging.ERROR, event, fields)

    def _emit(self, level: int, event: str, fields: dict[str, object]) -> None:
        _LOGGER.log(level, "%s", event, extra={"fields": {**self._fields, **fields}})


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", {})
    return {name: _masked(value) for name, value in fields.items()}


def _masked(value: object) -> object:
    """Mask the secrets of URLs; what is neither plain nor a dictionary is logged as its words."""
    if isinstance(value, dict):
        pairs = cast("dict[str, object]", value).items()
        return {name: _masked(part) for name, part in pairs}
    return value if value is None or isinstance(value, int | float) else mask_urls(str(value))


def _time_of(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """`TIME LEVEL event key=value …`; a value with a space is quoted."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        pairs = "".join(f" {key}={_plain(value)}" for key, value in _fields_of(record).items())
        return f"{_time_of(record)} {record.levelname:<7} {record.getMessage()}{pairs}"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time`, `level`, `event` and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        head = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        return json.dumps({**head, **_fields_of(record)}, default=str)


class JournalFormatter(logging.Formatter):
    """Puts the journal's priority in front of each line of another formatter."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        mark = next((mark for level, mark in _PRIORITIES if record.levelno >= level), "<7>")
        return "\n".join(mark + line for line in self._formatter.format(record).split("\n"))


def is_the_journal(number: int, environ: Mapping[str, str]) -> bool:
    """Whether a descriptor is the one that systemd named as the journal (`JOURNAL_STREAM`)."""
    named = environ.get("JOURNAL_STREAM")
    if named is None:
        return False
    status = os.fstat(number)
    return named == f"{status.st_dev}:{status.st_ino}"


def _plain(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(c in text for c in ' "\n\r\t=') else text


def setup_logs(level: str, log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Send this package's events to `stream` (stderr) at `level`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    formatter = JsonFormatter() if log_format == "json" else TextFormatter()
    journal = stream is None and is_the_journal(STDERR, os.environ)
    handler.setFormatter(JournalFormatter(formatter) if journal else formatter)
    _LOGGER.handlers[:] = [handler]
    _LOGGER.setLevel(level.upper())
    _LOGGER.propagate = False
