"""Print jobs, engines and attempts as tables: drawn on a terminal, plain columns elsewhere.

A plain table is never cut to a width, so that another program reads whole values.
"""

import time
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distconv_client.display import text
from distconv_client.views import EngineView
from distconvd.model import Attempt, Capability, Job

STYLES = {
    "pending": "yellow",
    "assigned": "cyan",
    "completed": "green",
    "failed_permanently": "red",
    "cancelled": "dim",
    "idle": "green",
    "busy": "cyan",
    "draining": "yellow",
    "offline": "dim",
    "quarantined": "red",
    "failed": "red",
    "lost": "red",
    "running": "cyan",
}
"""The colour of each word for a state."""

JOB_COLUMNS = ("JOB", "STATUS", "CODEC", "SIZE", "SOURCE", "ENGINE", "AGE", "PROGRESS")
ENGINE_COLUMNS = ("ENGINE", "STATE", "CODECS", "BENCHMARK", "JOBS", "FREE", "CPU", "SEEN", "TAGS")
ATTEMPT_COLUMNS = ("ATTEMPT", "ENGINE", "OUTCOME", "CLASS", "STARTED", "TOOK", "MESSAGE")


LONG = frozenset({"SOURCE", "PROGRESS", "OUTPUT", "MESSAGE", "CODECS", "TAGS"})
"""Columns that are folded on a narrow terminal; all others stay on one line."""


def print_table(console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; the cells must be clean (see `text.clean`)."""
    whole = [list(row) for row in rows]
    if console.is_terminal:
        console.print(drawn(columns, whole))
    else:
        print_plain(console, [list(columns), *whole])


def drawn(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table for a terminal."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True)
    for name in columns:
        table.add_column(name, no_wrap=name not in LONG, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    return table


def print_plain(console: Console, rows: Sequence[Sequence[str]]) -> None:
    """Print rows as columns, two spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.out(line.rstrip(), highlight=False)


def job_row(job: Job) -> tuple[str, ...]:
    """Return a job as a row of `JOB_COLUMNS`."""
    return (
        text.clean(job.job_id),
        job.status,
        text.clean(job.target_codec),
        text.size(job.job_size * 1e6) if job.job_size else text.NOTHING,
        text.source_name(job.source_url),
        text.clean(job.assigned_engine or text.NOTHING),
        text.ago(job.created_at, time.time()),
        text.progress(job),
    )


def engine_row(engine: EngineView) -> tuple[str, ...]:
    """Return an engine as a row of `ENGINE_COLUMNS`."""
    benchmark, cpu, tags = engine.benchmark_time, engine.cpu_percent, ",".join(engine.tags)
    return (
        text.clean(engine.engine_id),
        text.clean(engine.status),
        text.clean(",".join(engine.supported_codecs) or "any"),
        text.NOTHING if benchmark is None else f"{benchmark:.2f}s",
        f"{len(engine.jobs)}/{engine.slots}",
        text.NOTHING if engine.free_gb is None else text.size(engine.free_gb * 1e9),
        text.NOTHING if cpu is None else f"{cpu:.0f}%",
        text.ago(engine.last_seen_at, time.time()),
        text.clean(" ".join(filter(None, (tags, *lacks(engine)))) or text.NOTHING),
    )


def lacks(engine: EngineView) -> list[str]:
    """Return in words which capabilities an engine lacks; none if it never reported any."""
    if engine.capabilities is None:
        return []
    return [f"(lacks {name})" for name in Capability if name not in engine.capabilities]


def attempt_row(attempt: Attempt) -> tuple[str, ...]:
    """Return an attempt as a row of `ATTEMPT_COLUMNS`."""
    return (
        str(attempt.number),
        text.clean(attempt.engine_id or text.NOTHING),
        attempt.outcome,
        attempt.error_class or text.NOTHING,
        text.ago(attempt.started_at, time.time()),
        took(attempt),
        text.clean(attempt.message or text.NOTHING),
    )


def took(attempt: Attempt) -> str:
    """Return how long an attempt lasted, or has lasted so far."""
    if attempt.started_at is None:
        return text.NOTHING
    end_s = time.time() if attempt.ended_at is None else attempt.ended_at / 1000
    return text.duration(end_s - attempt.started_at / 1000)


def print_facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    for name, value in facts:
        line = Text(f"{name:<12}", style="bold") + Text(value, style=STYLES.get(value, ""))
        console.print(line, soft_wrap=True)


def job_facts(job: Job) -> list[tuple[str, str]]:
    """Return the facts of one job for a person; unset ones are left out."""
    now_s = time.time()
    facts = [
        ("job", text.clean(job.job_id)),
        ("status", str(job.status)),
        ("source", text.place(job.source_url)),
        ("codec", text.clean(job.target_codec)),
        ("size", text.size(job.job_size * 1e6) if job.job_size else ""),
        ("priority", text.priority(job.priority) if job.priority else ""),
        ("engine", text.clean(job.assigned_engine or "")),
        ("placed", text.clean(job.placement or "")),
        ("attempt", f"{job.attempt}, {job.retries} of {job.max_retries} retries used"),
        ("progress", progress_fact(job)),
        ("labels", text.clean(" ".join(f"{k}={v}" for k, v in job.labels.items()))),
        ("requires", text.clean(" ".join(job.requires))),
        ("needs", text.clean(" ".join(job.needs))),
        ("created", f"{text.ago(job.created_at, now_s)} ago" if job.created_at else ""),
        ("finished", f"{text.ago(job.finished_at, now_s)} ago" if job.finished_at else ""),
        ("output", text.place(job.output_url) if job.output_url else ""),
        ("result", result_fact(job)),
        ("notes", text.clean(", ".join((job.result and job.result.notes) or ()))),
        ("damage", text.clean("; ".join((job.result and job.result.damage) or ()))),
        ("error", text.clean(f"{job.error_class or ''} {job.error_message or ''}".strip())),
    ]
    return [(name, value) for name, value in facts if value]


def progress_fact(job: Job) -> str:
    """Return how far a running job is; empty for any other."""
    if job.progress is None or job.status != "assigned":
        return ""
    return f"{text.progress(job)} {text.pace(job)}".rstrip()


def result_fact(job: Job) -> str:
    """Return the facts of the checked output; empty if there is no result."""
    found = job.result
    if found is None:
        return ""
    before = found.source_size_bytes or job.job_size * 1e6
    parts = (
        f"{text.size(before)} -> {text.size(found.size_bytes)}",
        f"{text.saved(before, found.size_bytes)} saved",
        "" if found.video_frames is None else text.count(found.video_frames, "frame"),
        text.duration(found.duration_s),
        "" if not found.checks else f"{text.count(len(found.checks), 'check')} passed",
    )
    return ", ".join(part for part in parts if part and part != text.NOTHING)
