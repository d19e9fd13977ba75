"""Log one line per event to stderr, as text for people or JSON for machines.

The secrets of URLs are masked.

If stderr is systemd's journal, each line begins with its priority (`<3>`): the journal removes that from
the line and stores it, so that `journalctl -p err` finds what `grep ERROR` does.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Literal

from distconvd.model import mask_urls

LEVELS = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
}

STDERR = 2
_PRIORITIES = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>"))
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up_logs(level: str, style: Literal["text", "json"]) -> None:
    """Send all logs to stderr; `level` is one of `LEVELS`."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter() if style == "json" else TextFormatter()
    journal = is_the_journal(STDERR, os.environ)
    handler.setFormatter(JournalFormatter(formatter) if journal else formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields that the caller gave as `extra`, without those that are None."""
    return {k: v for k, v in vars(record).items() if k not in _STANDARD and v is not None}


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO distconvd.access POST /jobs/ 200 … job_id=…`; a newline in a
    value is escaped, so that nobody can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        parts = [
            stamp(record.created),
            record.levelname,
            record.name,
            one_line(mask_urls(record.getMessage())),
        ]
        known = ("method", "path", "status", "bytes", "duration_ms")
        fields = fields_of(record)
        parts += [f"{k}={one_line(mask_urls(str(v)))}" for k, v in fields.items() if k not in known]
        text = " ".join(parts)
        if record.exc_info:
            # Indented, so that a message with a line break in it cannot look like an entry.
            lines = self.formatException(record.exc_info).splitlines()
            text += "".join(f"\n  {one_line(mask_urls(line))}" for line in lines)
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: dict[str, object] = {
            "time": stamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": mask_urls(record.getMessage()),
        }
        entry = {k: _masked(v) for k, v in fields_of(record).items()} | entry
        if record.exc_info:
            entry["traceback"] = mask_urls(self.formatException(record.exc_info))
        return json.dumps(entry, default=str)


class JournalFormatter(logging.Formatter):
    """Another formatter's lines, each prefixed with its priority for the journal."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines."""
        mark = next((mark for level, mark in _PRIORITIES if record.levelno >= level), "<7>")
        return "\n".join(mark + line for line in self._formatter.format(record).split("\n"))


def _masked(value: object) -> object:
    return mask_urls(value) if isinstance(value, str) else value


def is_the_journal(number: int, environ: Mapping[str, str]) -> bool:
    """Return whether a descriptor is the one that systemd names as the journal (`JOURNAL_STREAM`)."""
    named = environ.get("JOURNAL_STREAM")
    if named is None:
        return False
    status = os.fstat(number)
    return named == f"{status.st_dev}:{status.st_ino}"


def stamp(seconds: float) -> str:
    """Return a time as RFC 3339 in UTC, to the millisecond."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def one_line(text: str) -> str:
    """Return the text with line breaks and control characters escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
