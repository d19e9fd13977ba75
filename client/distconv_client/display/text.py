"""Format values for a person as plain strings: sizes, times, names and progress.

Whatever came over the network goes through `clean` before it is printed: a label or an error
message may contain escape sequences that would control the reader's terminal.
"""

import unicodedata
from urllib.parse import unquote, urlsplit

from distconvd.model import Job, JobStatus

PRIORITIES = {"normal": 0, "high": 1, "urgent": 2}
NOTHING = "-"


def clean(text: str) -> str:
    """Return `text` on one line, with every control and format character made visible."""
    return "".join(
        char if unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} else shown(char)
        for char in text
    )


def shown(char: str) -> str:
    """Return a harmless replacement of a control character."""
    return " " if char in "\n\r\t" else f"\\x{ord(char):02x}"


def size(count_bytes: float | None) -> str:
    """Return a size with three digits in decimal units, like `job_size`."""
    if count_bytes is None:
        return NOTHING
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        value = count_bytes / factor
        if value >= 0.9995:
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f} {unit}"
    return f"{count_bytes:.0f} B"


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def saved(before_bytes: float | None, after_bytes: float | None) -> str:
    """Return how much smaller the result is, in percent of the source."""
    if not before_bytes or after_bytes is None:
        return NOTHING
    return f"{100 * (1 - after_bytes / before_bytes):.0f}%"


def duration(seconds: float | None) -> str:
    """Return a span of time in its two largest units."""
    if seconds is None or seconds < 0:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.0f}s" if seconds >= 10 else f"{seconds:.1f}s"
    minutes, rest_s = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest_s:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours < 24 else f"{hours // 24}d{hours % 24:02}h"


def ago(moment_ms: int | None, now_s: float) -> str:
    """Return how long ago `moment_ms` was; zero if it is ahead of this machine's clock."""
    return NOTHING if not moment_ms else duration(max(0.0, now_s - moment_ms / 1000))


def priority(value: int) -> str:
    """Return the word for a priority, or its number if it has none."""
    return next((word for word, number in PRIORITIES.items() if number == value), str(value))


def source_name(url: str) -> str:
    """Return the last part of a URL's path, decoded: the file's name."""
    return clean(unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2] or url)


def place(url: str | None) -> str:
    """Return a `file://` URL as the path that a person would type, any other unchanged."""
    if not url:
        return NOTHING
    parts = urlsplit(url)
    return clean(unquote(parts.path) if parts.scheme == "file" else url)


def progress(job: Job) -> str:
    """Return in a few words how far a job is, or how it ended."""
    if job.status is JobStatus.COMPLETED:
        return place(job.output_url)
    if job.error_message and job.status is not JobStatus.ASSIGNED:
        return clean(job.error_message)
    if job.progress is None or job.status is not JobStatus.ASSIGNED:
        return "paused" if job.paused else NOTHING
    state = ", paused" if job.paused else ""
    return f"{job.progress.fraction:.0%} {clean(job.progress.phase)}{state}"


def pace(job: Job) -> str:
    """Return the speed and the remaining time of a running job, as far as they are known."""
    now = job.progress
    if now is None or job.status is not JobStatus.ASSIGNED:
        return ""
    parts = (
        "" if now.fps is None else f"{now.fps:.0f} fps",
        "" if now.speed is None else f"{now.speed:.2g}x",
        "" if now.eta_seconds is None else f"eta {duration(now.eta_seconds)}",
    )
    return " ".join(part for part in parts if part)
