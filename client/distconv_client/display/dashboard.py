"""Draw a farm as one screen that fits a terminal of any size.

Columns are left out, the least important first, until a row fits the width; rows are left out, and
counted, until the screen fits the height. These are pure functions of snapshot, size and time, so
the live screen, `--once` and the tests draw the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

from rich.text import Text

from distconv_client.cluster import FarmSnapshot, Outage
from distconv_client.display import text
from distconv_client.display.tables import STYLES
from distconv_client.views import EngineView, StatusView
from distconvd.model import Job, JobStatus, Progress

BAR_CHARS = 12
GAP = "  "
BACK_SHOWN_S = 10.0


class Column(NamedTuple):
    """One column.

    Attributes:
        name: its heading.
        rank: 0 always stays; the highest is left out first on a narrow terminal.
        chars_max: longer cells are cut.
        right: aligned to the right.
    """

    name: str
    rank: int = 0
    chars_max: int = 40
    right: bool = False


ENGINE_COLUMNS = (
    Column("ENGINE", chars_max=24),
    Column("STATE"),
    Column("SLOTS", right=True),
    Column("BENCHMARK", rank=2, right=True),
    Column("CPU", rank=3, right=True),
    Column("FREE", rank=4, right=True),
    Column("CODECS", rank=5),
    Column("SEEN", rank=1, right=True),
)
JOB_COLUMNS = (
    Column("JOB", rank=4, chars_max=28),
    Column("SOURCE", chars_max=24),
    Column("CODEC", rank=3),
    Column("ENGINE", rank=2, chars_max=24),
    Column("PHASE", rank=1),
    Column("", rank=5),
    Column("DONE", right=True),
    Column("SPEED", rank=1, right=True),
    Column("ETA", right=True),
)


def draw_dashboard(
    snapshot: FarmSnapshot | None,
    *,
    server: str,
    width: int,
    height: int | None,
    now_s: float,
    outage: Outage | None = None,
    returned_s: float | None = None,
) -> list[Text]:
    """Return the lines of the screen.

    Args:
        snapshot: the last snapshot, None before the first.
        server: the daemon's address.
        width: characters in a line.
        height: lines; None: no limit.
        now_s: seconds since the epoch.
        outage: set while the daemon is unavailable.
        returned_s: when the last outage ended.
    """
    lines = [_head(snapshot, server, width, now_s), *_notices(snapshot, outage, returned_s, now_s)]
    if snapshot is not None:
        lines += _counts(snapshot.status)
        rest = None if height is None else max(0, height - len(lines))
        lines += _tables(snapshot, width, rest, now_s)
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines if height is None else lines[:height]


def _head(snapshot: FarmSnapshot | None, server: str, width: int, now_s: float) -> Text:
    left = f"distconvd at {text.clean(server)}"
    if snapshot is not None:
        up = text.duration(snapshot.status.uptime_s)
        left = f"distconvd {text.clean(snapshot.status.version)} at {text.clean(server)}, up {up}"
        seen = f"seen {text.ago(snapshot.at_ms, now_s)} ago"
        if len(left) + len(GAP) + len(seen) <= width:
            left = f"{left}{seen:>{width - len(left)}}"
    return Text(left, style="bold")


def _notices(
    snapshot: FarmSnapshot | None, outage: Outage | None, returned_s: float | None, now_s: float
) -> list[Text]:
    """Return lines about an outage, its end, and causes for refusing changes."""
    if outage is not None:
        since = text.duration(max(0.0, now_s - outage.since_s))
        last = "no state known yet" if snapshot is None else "showing the last known state"
        return [
            Text(f"UNAVAILABLE for {since}: {text.clean(outage.error.message)}", style="bold red"),
            Text(f"Running jobs continue; trying again; {last}.", style="yellow"),
        ]
    lines: list[Text] = []
    if returned_s is not None and now_s - returned_s < BACK_SHOWN_S:
        lines.append(Text("The daemon is back.", style="green"))
    for cause, reason in snapshot.status.not_ready.items() if snapshot is not None else ():
        lines.append(
            Text(f"NOT READY, {text.clean(cause)}: {text.clean(reason)}", style="bold red")
        )
    return lines


def _counts(status: StatusView) -> list[Text]:
    jobs = Text("jobs   ")
    for word in JobStatus:
        count = status.jobs.get(word, 0)
        jobs.append(
            f"{GAP}{count} {word.replace('_', ' ')}", style=STYLES[word] if count else "dim"
        )
    queue = status.queue
    oldest = "" if queue.oldest_s is None else f", the oldest for {text.duration(queue.oldest_s)}"
    later = f"; {queue.delayed} delayed" if queue.delayed else ""
    engines = Text("engines")
    for state, count in status.engines.items():
        engines.append(f"{GAP}{count} {text.clean(state)}", style=STYLES.get(state, ""))
    if not status.engines:
        engines.append(f"{GAP}none; start one: distconv-engine --server URL", style="yellow")
    return [jobs, Text(f"queue    {queue.ready} ready{oldest}{later}"), engines]


def _tables(snapshot: FarmSnapshot, width: int, rows: int | None, now_s: float) -> list[Text]:
    """Return both tables in `rows` lines: each gets half, and what the other does not need."""
    engines = [engine_cells(engine, now_s) for engine in snapshot.engines]
    jobs = [job_cells(job) for job in snapshot.running]
    for_engines, for_jobs = _rows_of_tables(rows, len(engines), len(jobs))
    return [
        *_table(ENGINE_COLUMNS, engines, width, for_engines),
        *_table(JOB_COLUMNS, jobs, width, for_jobs),
    ]


def _rows_of_tables(rows: int | None, engines: int, jobs: int) -> tuple[int, int]:
    """Return how many rows of each table fit, in addition to headings and empty lines."""
    if rows is None:
        return engines, jobs
    left = max(0, rows - 2 * (bool(engines) + bool(jobs)))
    for_engines = min(engines, max(left // 2, left - jobs))
    return for_engines, left - for_engines


def _table(
    columns: Sequence[Column], rows: Sequence[tuple[str, ...]], width: int, rows_max: int
) -> list[Text]:
    """Return an empty line, a heading and rows; if not all rows fit, the last line counts the
    others. Without rows, return nothing."""
    if not rows:
        return []
    shown = rows if len(rows) <= rows_max else rows[: max(0, rows_max - 1)]
    cut = [tuple(map(_cut, row, columns)) for row in shown]
    columns_shown = tuple(column.name for column in columns)
    widths = [max(map(len, cells)) for cells in zip(columns_shown, *cut, strict=True)]
    fitting = _fitting(columns, widths, width)
    lines = [Text(), _row(columns_shown, fitting, columns, widths, "bold")]
    lines += [_row(row, fitting, columns, widths, "") for row in cut]
    if len(shown) < len(rows):
        lines.append(Text(f"… and {len(rows) - len(shown)} more", style="dim"))
    return lines


def _fitting(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """Return the indexes of the columns that stay."""
    shown = list(range(len(columns)))
    while sum(widths[at] for at in shown) + len(GAP) * (len(shown) - 1) > width:
        worst = max(shown, key=lambda at: columns[at].rank)
        if columns[worst].rank == 0:
            break
        shown.remove(worst)
    return shown


def _row(
    cells: Sequence[str],
    shown: Sequence[int],
    columns: Sequence[Column],
    widths: Sequence[int],
    style: str,
) -> Text:
    line = Text(style=style)
    for at in shown:
        cell = cells[at]
        padded = cell.rjust(widths[at]) if columns[at].right else cell.ljust(widths[at])
        line.append(GAP if line else "")
        line.append(padded, style=STYLES.get(cell, ""))
    line.rstrip()
    return line


def _cut(cell: str, column: Column) -> str:
    return cell if len(cell) <= column.chars_max else cell[: column.chars_max - 1] + "…"


def engine_cells(engine: EngineView, now_s: float) -> tuple[str, ...]:
    """Return an engine as a row of `ENGINE_COLUMNS`."""
    return (
        text.clean(engine.engine_id),
        text.clean(engine.status),
        f"{len(engine.jobs)}/{engine.slots}",
        _benchmark(engine),
        text.NOTHING if engine.cpu_percent is None else f"{engine.cpu_percent:.0f}%",
        text.NOTHING if engine.free_gb is None else text.size(engine.free_gb * 1e9),
        text.clean(",".join(engine.supported_codecs) or "any"),
        text.ago(engine.last_seen_at, now_s),
    )


def job_cells(job: Job) -> tuple[str, ...]:
    """Return a running job as a row of `JOB_COLUMNS`."""
    now = job.progress or Progress(phase="started")
    return (
        text.clean(job.job_id),
        text.source_name(job.source_url),
        text.clean(job.target_codec),
        text.clean(job.assigned_engine or text.NOTHING),
        "paused" if job.paused else text.clean(now.phase),
        _bar(now.fraction),
        f"{now.fraction:.0%}",
        text.NOTHING if now.speed is None else f"{now.speed:.2g}x",
        text.duration(now.eta_seconds),
    )


def _benchmark(engine: EngineView) -> str:
    seconds = engine.benchmark_time
    return text.NOTHING if seconds is None else f"{seconds:.2f}s"


def _bar(fraction: float) -> str:
    done = round(BAR_CHARS * min(1.0, max(0.0, fraction)))
    return "█" * done + "░" * (BAR_CHARS - done)
