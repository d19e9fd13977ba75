"""Show the progress of jobs: bars on a terminal, occasional lines elsewhere, or JSON.

Bars and lines go to stderr, so that stdout contains only results. Each is a `follow.View`; `opened`
chooses one and always closes it.
"""

import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TaskProgressColumn
from rich.table import Column
from rich.text import Text

from distconv_client.display import text
from distconv_client.display.tables import STYLES
from distconv_client.display.terminal import print_json
from distconv_client.errors import ClientError
from distconv_client.follow import View
from distconvd.model import TERMINAL_STATUSES, Job, JobStatus

LINE_STEP = 0.25
"""Without a terminal, a running job gets a line each time another such part is done."""
BAR_WIDTH_MIN = 10
OUTAGE = "The jobs continue; waiting for the daemon to come back."


@contextmanager
def opened(console: Console, *, as_json: bool = False) -> Generator[View]:
    """Open the view that suits where the output goes.

    Args:
        console: stderr.
        as_json: print each change as a line of JSON on stdout instead.
    """
    if as_json:
        yield JsonView()
    elif is_live(console):
        view = BarsView(console)
        with view.bars:
            yield view
    else:
        yield LinesView(console)


def is_live(console: Console) -> bool:
    """Whether bars can be drawn; a forced colour (FORCE_COLOR) does not make a terminal."""
    return sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal


class JsonView:
    """A line of JSON whenever a job has changed."""

    def __init__(self) -> None:
        self._shown: dict[str, Job] = {}

    def show(self, jobs: Mapping[str, Job]) -> None:
        """Print the jobs that changed since the last time."""
        for job_id, job in jobs.items():
            if self._shown.get(job_id) != job:
                print_json(job)
        self._shown = dict(jobs)

    def outage(self, error: ClientError) -> None:
        """Report it on stderr, so that stdout stays JSON."""
        print(f"distconv: {error.message} {OUTAGE}", file=sys.stderr)


class LinesView:
    """A line when a job's status or phase changes, and for each quarter that is done.

    Args:
        console: where the lines go.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, tuple[object, ...]] = {}

    def show(self, jobs: Mapping[str, Job]) -> None:
        """Print a line for each job that has made noticeable progress."""
        landmarks = {job_id: landmark(job) for job_id, job in jobs.items()}
        for job_id, mark in landmarks.items():
            if self._shown.get(job_id) != mark:
                self._console.out(job_line(jobs[job_id]), highlight=False)
        self._shown = landmarks

    def outage(self, error: ClientError) -> None:
        """Print one line about it."""
        self._console.out(f"{error.message} {OUTAGE}", highlight=False)


def landmark(job: Job) -> tuple[object, ...]:
    """Return the facts of a job whose change is worth a new line."""
    now = job.progress if job.status is JobStatus.ASSIGNED else None
    if now is None:
        return (job.status, job.attempt)
    return (job.status, job.attempt, now.phase, int(now.fraction / LINE_STEP))


def job_line(job: Job) -> str:
    """Return one line about the state of a job."""
    where = "" if job.assigned_engine is None else f" on {text.clean(job.assigned_engine)}"
    news = text.progress(job)
    return (
        f"{text.clean(job.job_id)} {text.source_name(job.source_url)} -> "
        f"{text.clean(job.target_codec)}: {job.status}{where}"
        f"{'' if news == text.NOTHING else ' ' + news} {text.pace(job)}".rstrip()
    )


class BarsView:
    """One bar for each job, running ones first, but no more than the terminal has lines.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._last: dict[str, Job] = {}
        self.bars = Progress(
            FieldColumn("what"),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=BAR_WIDTH_MIN)),
            TaskProgressColumn(),
            FieldColumn("how"),
            console=console,
            expand=True,
        )
        self._sum = self.bars.add_task(
            "", total=1, what=Text("all jobs"), how=Text(), visible=False
        )

    def show(self, jobs: Mapping[str, Job]) -> None:
        """Update the bars; a job that is no longer followed leaves a line above them."""
        for job_id in self._last.keys() - jobs.keys():
            self.bars.remove_task(self._tasks.pop(job_id))
            self.bars.console.print(Text(job_line(self._last[job_id])), soft_wrap=True)
        shown = most_important(jobs.values(), max(1, self._console.height - 3))
        for job in jobs.values():
            self._update(job, visible=job.job_id in shown)
        ended = sum(job.status in TERMINAL_STATUSES for job in jobs.values())
        count = Text(f"{ended} of {len(jobs)} ended")
        total = max(1, len(jobs))
        self.bars.update(self._sum, total=total, completed=ended, how=count, visible=len(jobs) > 1)
        self._last = dict(jobs)

    def _update(self, job: Job, *, visible: bool) -> None:
        if job.job_id not in self._tasks:
            self._tasks[job.job_id] = self.bars.add_task("", total=1.0, what=Text(), how=Text())
        what = f"{text.source_name(job.source_url)} -> {text.clean(job.target_codec)}"
        self.bars.update(
            self._tasks[job.job_id],
            completed=fraction(job),
            visible=visible,
            what=Text(what),
            how=state(job),
        )

    def outage(self, error: ClientError) -> None:
        """Print one line above the bars."""
        self.bars.console.print(Text(f"{error.message} {OUTAGE}", style="yellow"))


class FieldColumn(ProgressColumn):
    """A column that shows one field of a task, a `Text`, without markup or line breaks.

    Args:
        field: the field's name.
    """

    def __init__(self, field: str) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis"))
        self._field = field

    def render(self, task: Task) -> Text:
        """Return the field's text."""
        shown: Text = task.fields[self._field]
        return shown


def fraction(job: Job) -> float:
    """Return how much of a job is done, 0 to 1."""
    if job.status is JobStatus.COMPLETED:
        return 1.0
    return job.progress.fraction if job.progress and job.status is JobStatus.ASSIGNED else 0.0


def state(job: Job) -> Text:
    """Return in a few words what a job is doing, or how it ended."""
    colour = STYLES[job.status]
    if job.status is JobStatus.ASSIGNED and job.progress is not None:
        phase, engine = text.clean(job.progress.phase), text.clean(job.assigned_engine or "")
        return Text(f"{phase} {engine} {text.pace(job)}".rstrip(), style=colour)
    if job.status is JobStatus.COMPLETED and job.result is not None:
        before = job.result.source_size_bytes or job.job_size * 1e6
        return Text(f"completed {text.saved(before, job.result.size_bytes)} saved", style=colour)
    if job.error_message:
        return Text(f"{job.status}: {text.clean(job.error_message)[:60]}", style=colour)
    return Text(job.status, style=colour)


SHOWN_FIRST = (JobStatus.ASSIGNED, JobStatus.PENDING)


def most_important(jobs: Iterable[Job], count: int) -> set[str]:
    """Return the IDs of the `count` jobs to show: running ones first, then pending, then ended."""
    ranked = sorted(jobs, key=lambda job: (*(job.status is not one for one in SHOWN_FIRST),))
    return {job.job_id for job in ranked[:count]}
