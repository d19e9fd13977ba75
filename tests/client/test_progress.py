"""Test the three views, bars, lines and JSON, and that none prints control sequences."""

import io
from collections.abc import Iterator

import msgspec
import pytest
from rich.console import Console

from distconv_client import DaemonUnreachable, Job, JobResult, JobStatus, Progress
from distconv_client.display.progress import BarsView, JsonView, LinesView, most_important, opened

JOB = Job("17_1", "file:///srv/a%20b.mov", "h265")
DOWN = DaemonUnreachable("Cannot reach the daemon at http://a.")


def at(fraction: float, phase: str = "encode") -> Job:
    now = Progress(fraction, fps=50.0, speed=2.0, eta_seconds=9, phase=phase)
    return msgspec.structs.replace(
        JOB, status=JobStatus.ASSIGNED, assigned_engine="attic-1", attempt=1, progress=now
    )


DONE = msgspec.structs.replace(
    JOB,
    status=JobStatus.COMPLETED,
    output_url="file:///out/a%20b.mp4",
    result=JobResult(size_bytes=400, source_size_bytes=1000),
)
BAD = msgspec.structs.replace(
    JOB, status=JobStatus.FAILED_PERMANENTLY, error_message="[bold]cut\x1b[31m"
)


def plain() -> Console:
    return Console(file=io.StringIO(), markup=False, highlight=False, width=80)


def terminal(height: int = 25) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=100, height=height, markup=False,
        color_system=None, highlight=False,
    )  # fmt: skip


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_line_is_printed_only_for_a_change() -> None:
    console = plain()
    view = LinesView(console)
    for job in (JOB, JOB, at(0.01), at(0.02), at(0.3), at(0.31), at(1.0, "verify"), DONE, DONE):
        view.show({job.job_id: job})
    assert written(console).splitlines() == [
        "17_1 a b.mov -> h265: pending",
        "17_1 a b.mov -> h265: assigned on attic-1 1% encode 50 fps 2x eta 9.0s",
        "17_1 a b.mov -> h265: assigned on attic-1 30% encode 50 fps 2x eta 9.0s",
        "17_1 a b.mov -> h265: assigned on attic-1 100% verify 50 fps 2x eta 9.0s",
        "17_1 a b.mov -> h265: completed /out/a b.mp4",
    ]


def test_lines_are_never_wrapped_and_have_no_escapes() -> None:
    console = plain()
    job = msgspec.structs.replace(BAD, error_message="\x1b[2J" + "x" * 200)
    LinesView(console).show({job.job_id: job})
    assert len(written(console).splitlines()) == 1
    assert "\x1b" not in written(console)


def test_an_outage_prints_a_line_that_says_that_the_jobs_continue() -> None:
    console = plain()
    LinesView(console).outage(DOWN)
    assert written(console) == (
        "Cannot reach the daemon at http://a. The jobs continue;"
        " waiting for the daemon to come back.\n"
    )


def test_json_prints_a_line_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    view = JsonView()
    for job in (JOB, JOB, at(0.1), at(0.2), DONE):
        view.show({job.job_id: job})
    view.outage(DOWN)
    printed = capsys.readouterr()
    jobs = [msgspec.json.decode(line, type=Job) for line in printed.out.splitlines()]
    assert jobs == [JOB, at(0.1), at(0.2), DONE]
    assert "The jobs continue" in printed.err


def test_bars_show_engine_speed_and_result() -> None:
    console = terminal()
    view = BarsView(console)
    for job in (JOB, at(0.25), DONE):
        view.show({job.job_id: job})
        console.print(view.bars.get_renderable())
    shown = written(console)
    assert "a b.mov -> h265" in shown
    assert "25% encode attic-1 50 fps 2x eta 9.0s" in shown
    assert "100% completed 60% saved" in shown


def test_bars_print_no_markup_and_no_escapes_of_the_daemon() -> None:
    console = terminal()
    view = BarsView(console)
    view.show({BAD.job_id: BAD})
    console.print(view.bars.get_renderable())
    assert "[bold]cut\\x1b[31m" in written(console)


def many(count: int) -> Iterator[Job]:
    for number in range(count):
        yield msgspec.structs.replace([DONE, JOB, at(0.5)][number % 3], job_id=str(number))


def test_there_are_no_more_bars_than_lines_and_running_jobs_come_first() -> None:
    console = terminal(height=10)
    view = BarsView(console)
    view.show({job.job_id: job for job in many(30)})
    visible = [task for task in view.bars.tasks if task.visible]
    assert len(visible) == 8  # seven jobs and the total
    assert sum("encode" in str(task.fields["how"]) for task in visible) == 7
    assert "10 of 30 ended" in str(visible[0].fields["how"])


def test_running_jobs_come_before_pending_ones_and_these_before_ended_ones() -> None:
    jobs = list(many(6))
    by_id = {job.job_id: job.status for job in jobs}
    assert {by_id[job_id] for job_id in most_important(jobs, 2)} == {"assigned"}
    assert {by_id[job_id] for job_id in most_important(jobs, 4)} == {"assigned", "pending"}
    assert len(most_important(jobs, 99)) == 6


def test_a_job_that_is_no_longer_followed_leaves_a_line_above_the_bars() -> None:
    console = terminal()
    view = BarsView(console)
    view.show({DONE.job_id: DONE})
    view.show({})
    assert "17_1 a b.mov -> h265: completed /out/a b.mp4" in written(console)
    assert len(view.bars.tasks) == 1


def test_lines_are_chosen_when_stderr_is_not_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with opened(terminal()) as view:
        assert isinstance(view, LinesView)


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_are_chosen_on_a_terminal_that_can_draw_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Tty())
    with opened(terminal()) as view:
        assert isinstance(view, BarsView)
    monkeypatch.setenv("TERM", "dumb")
    with opened(terminal()) as view:
        assert isinstance(view, LinesView)
