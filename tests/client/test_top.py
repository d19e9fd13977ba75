"""Test `distconv top`: the screen at any size, outages, JSON, and the pace of refreshes."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from tests.client.fake import FakeDaemon, found, problem, running, served

from distconv_client import cluster
from distconv_client.cluster import FarmSnapshot, FarmWatcher, Outage
from distconv_client.display.dashboard import draw_dashboard
from distconv_client.errors import DaemonUnreachable, Refused
from distconv_client.follow import Pace
from distconv_client.main import cli
from distconv_client.shared import Flags
from distconv_client.views import EngineView, QueueView, StatusView
from distconvd.model import Job, JobStatus, Progress

NOW_S = 1_700_000_000.0
STATUS = StatusView(
    "0.1.0", 3725.0, {"pending": 12, "assigned": 2, "completed": 1204, "failed_permanently": 3},
    QueueView(10, 2, 250.0), {"busy": 1, "offline": 1},
)  # fmt: skip


def engine(number: int, **fields: Any) -> EngineView:
    given = {
        "benchmark_time": 0.24, "cpu_percent": 97.0, "free_gb": 12.0, "supported_codecs": ["h264"],
        "status": "busy", "last_seen_at": int(NOW_S * 1000) - 400, "jobs": ["1_1"], **fields,
    }  # fmt: skip
    return EngineView(f"engine-{number}", **given)


def job(number: int, **fields: Any) -> Job:
    progress = Progress(0.4, 50.0, 2.0, 75.0, "encode")
    given = {
        "status": JobStatus.ASSIGNED, "assigned_engine": "engine-1", "progress": progress, **fields,
    }  # fmt: skip
    return Job(f"1763840000000000_{number}", f"file:///srv/film%20{number}.mov", "h265", **given)


def snapshot(engines: int = 2, jobs: int = 2) -> FarmSnapshot:
    at_ms = int(NOW_S * 1000) - 100
    return FarmSnapshot(
        at_ms, STATUS, [engine(n) for n in range(engines)], [job(n) for n in range(jobs)]
    )


def lines(
    seen: FarmSnapshot | None, width: int = 120, height: int | None = None, **more: Any
) -> list[str]:
    drawn = draw_dashboard(
        seen, server="http://d:8080", width=width, height=height, now_s=NOW_S, **more
    )
    return [line.plain for line in drawn]


UNREACHABLE: list[httpx.Response | Exception] = [httpx.ConnectError("refused")] * 4
"""As many errors as a request has tries."""


def squeezed(line: str) -> str:
    return " ".join(line.split())


# ------------------------------------------------------------------------------------ the screen


def test_the_screen_shows_queue_engines_and_running_jobs() -> None:
    shown = lines(snapshot())
    assert shown[0].startswith("distconvd 0.1.0 at http://d:8080, up 1h02m")
    assert shown[0].endswith("seen 0.1s ago")
    assert squeezed(shown[1]) == (
        "jobs 12 pending 2 assigned 1204 completed 3 failed permanently 0 cancelled"
    )
    assert shown[2] == "queue    10 ready, the oldest for 4m10s; 2 delayed"
    assert squeezed(shown[3]) == "engines 1 busy 1 offline"
    head, first = shown[5].split(), shown[6].split()
    assert head == ["ENGINE", "STATE", "SLOTS", "BENCHMARK", "CPU", "FREE", "CODECS", "SEEN"]
    assert first == ["engine-0", "busy", "1/1", "0.24s", "97%", "12.0", "GB", "h264", "0.4s"]
    assert squeezed(shown[9]) == "JOB SOURCE CODEC ENGINE PHASE DONE SPEED ETA"
    assert squeezed(shown[10]) == (
        "1763840000000000_0 film 0.mov h265 engine-1 encode █████░░░░░░░ 40% 2x 1m15s"
    )


@pytest.mark.parametrize("width", [200, 80, 40, 5, 1])
def test_every_screen_fits_its_terminal(width: int) -> None:
    for height in (60, 24, 12, 8, 3, 1):
        for engines, jobs in ((0, 0), (1, 30), (30, 1), (30, 30)):
            shown = lines(snapshot(engines, jobs), width, height)
            assert len(shown) <= height
            assert max(map(len, shown)) <= width


def test_a_narrow_screen_keeps_the_most_important_columns() -> None:
    shown = lines(snapshot(), 42)
    assert shown[5].split() == ["ENGINE", "STATE", "SLOTS", "BENCHMARK", "SEEN"]
    assert shown[9].split() == ["SOURCE", "PHASE", "DONE", "SPEED", "ETA"]


def test_a_low_screen_counts_the_rows_that_are_left_out() -> None:
    shown = lines(snapshot(30, 30), 100, 24)
    assert [line for line in shown if "more" in line] == ["… and 23 more", "… and 23 more"]
    few_engines = lines(snapshot(2, 30), 100, 24)
    assert [line for line in few_engines if "more" in line] == ["… and 17 more"]
    assert lines(snapshot(30, 2), 100, 24)[-1].startswith("1763840000000000_1")


def test_a_farm_without_engines_says_how_to_start_one() -> None:
    empty = FarmSnapshot(0, StatusView("0.1.0", 1.0, {}, QueueView(), {}), [], [])
    assert "none; start one: distconv-engine --server URL" in lines(empty)[3]


def test_a_daemon_that_is_not_ready_says_why() -> None:
    status = StatusView("0.1.0", 1.0, {}, QueueView(), {}, {"store": "the disk\x1b is full"})
    assert lines(FarmSnapshot(0, status, [], []))[1] == "NOT READY, store: the disk\\x1b is full"


def test_paused_jobs_and_jobs_without_progress_are_shown_as_such() -> None:
    seen = FarmSnapshot(0, STATUS, [], [job(1, paused=True), job(2, progress=None)])
    paused, started = lines(seen)[-2:]
    assert " paused " in paused
    assert started.split()[-5:] == ["started", "░░░░░░░░░░░░", "0%", "-", "-"]


def test_an_outage_is_shown_above_the_last_known_state() -> None:
    error = DaemonUnreachable("Cannot reach the daemon.")
    shown = lines(snapshot(), outage=Outage(NOW_S - 12, error))
    assert shown[1] == "UNAVAILABLE for 12s: Cannot reach the daemon."
    assert "engine-0" in "\n".join(shown)
    assert "no state known yet" in lines(None, outage=Outage(NOW_S, error))[2]
    assert lines(snapshot(), returned_s=NOW_S - 3)[1] == "The daemon is back."
    assert lines(snapshot(), returned_s=NOW_S - 60)[1].startswith("jobs")


# -------------------------------------------------------------------------------------- looking


class Site(FakeDaemon):
    """The fake daemon, with `/status`."""

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/status" and not self.faults:
            self.requests.append(request)
            return found(STATUS)
        return super().handle(request)


@pytest.fixture
def daemon() -> Site:
    site = Site(life=(running(0.3), running(0.6), running(0.9)))
    for number in range(3):
        site.add(status=JobStatus.ASSIGNED, job_id=f"1_{number}")
    site.engines = [
        {"engine_id": "attic", "status": "busy", "jobs": ["1_0", "1_1"], "slots": 2},
        {"engine_id": "barn", "status": "busy", "jobs": ["1_2", "gone"]},
    ]
    return site


def test_a_refresh_asks_only_for_assigned_jobs(daemon: Site) -> None:
    watcher = FarmWatcher(daemon.client())
    watcher.refresh_snapshot()
    assert watcher.snapshot is not None
    assert {seen.job_id for seen in watcher.snapshot.running} == {"1_0", "1_1", "1_2"}
    paths = [request.url.path for request in daemon.requests]
    assert paths == ["/status", "/engines/", "/jobs/1_0", "/jobs/1_1", "/jobs/1_2", "/jobs/gone"]


def test_no_more_jobs_are_requested_than_can_be_shown(daemon: Site) -> None:
    FarmWatcher(daemon.client()).refresh_snapshot(jobs_max=2)
    assert len([r for r in daemon.requests if r.url.path.startswith("/jobs/")]) == 2


def test_many_jobs_are_requested_in_turn(daemon: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ASKED_PER_REFRESH", 2)
    watcher = FarmWatcher(daemon.client())
    asked: list[list[str]] = []
    for _ in range(4):
        daemon.requests.clear()
        watcher.refresh_snapshot()
        jobs = [r.url.path for r in daemon.requests if r.url.path.startswith("/jobs/")]
        asked.append([path.rpartition("/")[2] for path in jobs])
    assert asked == [["1_0", "1_1"], ["1_2", "gone"], ["1_0", "1_1"], ["1_2", "gone"]]
    assert watcher.snapshot is not None
    assert len(watcher.snapshot.running) == 3


def test_too_many_requests_count_as_an_outage(daemon: Site) -> None:
    daemon.faults = [problem(429, "slower")] * 4
    watcher = FarmWatcher(daemon.client())
    watcher.refresh_snapshot()
    assert watcher.outage is not None


def test_a_slow_daemon_is_asked_less_often(daemon: Site) -> None:
    moments = iter([0.0, 0.01, 10.0, 10.5, 20.0, 50.0])
    watcher = FarmWatcher(daemon.client(), ticker=lambda: next(moments))
    pauses: list[float] = []
    for _ in range(3):
        watcher.refresh_snapshot()
        pauses.append(watcher.next_in_s)
    assert pauses == [cluster.EVERY_S, 5.0, cluster.EVERY_S_MAX]


def test_an_outage_keeps_the_last_snapshot_and_its_end_is_recorded(daemon: Site) -> None:
    clock = iter([1.0, 100.0, 200.0, 300.0])
    watcher = FarmWatcher(daemon.client(), clock=lambda: next(clock))
    watcher.refresh_snapshot()
    daemon.faults = [*UNREACHABLE, *[problem(503, "stopping")] * 4]
    watcher.refresh_snapshot()
    assert watcher.outage is not None
    assert isinstance(watcher.outage.error, DaemonUnreachable)
    watcher.refresh_snapshot()
    refused = watcher.outage
    assert isinstance(refused.error, Refused)
    assert refused.since_s == 100.0
    watcher.refresh_snapshot()
    ended: Outage | None = watcher.outage
    assert (ended, watcher.returned_s) == (None, 300.0)
    assert watcher.snapshot is not None
    assert watcher.snapshot.at_ms == 200_000


def test_a_wrong_key_is_not_an_outage(daemon: Site) -> None:
    daemon.faults = [problem(401, "Unauthorized")]
    with pytest.raises(Refused):
        FarmWatcher(daemon.client()).refresh_snapshot()


# ------------------------------------------------------------------------------------ the command


@pytest.fixture
def call(daemon: Site) -> Callable[..., Result]:
    def run(*words: str, sleep: Callable[[float], None] = lambda s: None) -> Result:
        flags = Flags(make_client=daemon.client, pace=Pace(sleep=sleep))
        return CliRunner().invoke(cli, ["top", *words], obj=flags)

    return run


def test_once_prints_one_whole_screen(call: Callable[..., Result]) -> None:
    result = call("--once")
    assert result.exit_code == 0
    assert "attic" in result.stdout
    assert result.stdout.count("encode") == 3
    assert "\x1b" not in result.stdout


def test_without_a_terminal_top_prints_one_screen(call: Callable[..., Result]) -> None:
    assert call().exit_code == 0


def test_once_exits_1_when_the_daemon_is_unavailable(
    call: Callable[..., Result], daemon: Site
) -> None:
    daemon.faults = [*UNREACHABLE]
    result = call("--once")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Cannot reach the daemon" in result.stderr


def test_json_is_one_document_per_refresh(call: Callable[..., Result]) -> None:
    document = json.loads(call("--once", "--json").stdout)
    assert document["status"]["queue"] == {"ready": 10, "delayed": 2, "oldest_s": 250.0}
    assert [seen["engine_id"] for seen in document["engines"]] == ["attic", "barn"]
    assert document["running"][0]["progress"]["fraction"] == 0.3


def test_json_goes_on_through_an_outage_until_interrupted(
    call: Callable[..., Result], daemon: Site
) -> None:
    looks = iter(["away", "away", "back", "stop"])

    def sleep(seconds: float) -> None:
        what = next(looks)
        if what == "away":
            daemon.faults = [*UNREACHABLE]
        elif what == "stop":
            raise KeyboardInterrupt

    result = call("--json", sleep=sleep)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr.count("Trying again.") == 1


# ------------------------------------------------------------------------------------ a terminal

COMMAND = "from distconv_client.main import main; main()"
DEADLINE_S = 20.0


class Terminal:
    """A `distconv top` on a pseudo-terminal of 80 by 24."""

    def __init__(self, url: str) -> None:
        self._ours, theirs = pty.openpty()
        environ = {k: v for k, v in os.environ.items() if not k.startswith("DISTCONV_")}
        environ |= {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "top", "--server", url],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""

    def wait_for(self, text: str) -> None:
        """Read until `text` has been drawn."""
        deadline_s = time.monotonic() + DEADLINE_S
        while text not in self.seen:
            assert time.monotonic() < deadline_s, self.seen[-2000:]
            if select.select([self._ours], [], [], 0.2)[0]:
                self.seen += os.read(self._ours, 65536).decode(errors="replace")

    def press(self, key: str) -> None:
        os.write(self._ours, key.encode())

    def end(self) -> int:
        """Read what is left until the process has ended; return its exit code."""
        deadline_s = time.monotonic() + DEADLINE_S
        while self.process.poll() is None and time.monotonic() < deadline_s:
            try:
                if select.select([self._ours], [], [], 0.1)[0]:
                    self.seen += os.read(self._ours, 65536).decode(errors="replace")
            except OSError:
                break  # the other side is closed
        self.process.kill()
        os.close(self._ours)
        return self.process.wait()


@pytest.mark.e2e
def test_on_a_terminal_top_is_live_survives_an_outage_and_q_quits(daemon: Site) -> None:
    with served(daemon) as url:
        terminal = Terminal(url)
        terminal.wait_for("encode")
        daemon.faults = [problem(500, "the disk is full")]
        terminal.wait_for("UNAVAILABLE for")
        terminal.wait_for("The daemon is back.")
        terminal.press("x")
        terminal.press("q")
        assert terminal.end() == 0
    assert terminal.seen.count("\x1b[?1049h") == terminal.seen.count("\x1b[?1049l") == 1


@pytest.mark.e2e
def test_on_a_terminal_control_c_quits_too(daemon: Site) -> None:
    with served(daemon) as url:
        terminal = Terminal(url)
        terminal.wait_for("encode")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
    assert "Traceback" not in terminal.seen
    assert "\x1b[?1049l" in terminal.seen
