"""Test the whole engine as a process, against a daemon on real sockets."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.engine.clips import Clips
from tests.engine.daemon import KEY, FakeDaemon, Served, wait_until
from tests.engine.measured import Measured

pytestmark = pytest.mark.e2e
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(daemon: FakeDaemon, clips: Clips, measured: Measured, tmp_path: Path) -> Iterator[Start]:
    """Start an engine on the fake daemon; whatever is left is killed at the end."""
    running: list[subprocess.Popen[bytes]] = []
    (tmp_path / "work").mkdir()
    measured.keep_in(tmp_path / "work")

    def begin(*flags: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "distconv_engine.main", "--server", daemon.url]
        argv += ["--work-dir", str(tmp_path / "work"), "--output", str(tmp_path / "out")]
        argv += ["--source-root", str(clips.folder), "--engine-id", "e1", "--heartbeat-s", "0.3"]
        argv += ["--poll-s", "1", "--disk-reserve-mb", "0", "--log-level", "debug", *flags]
        log = (tmp_path / "engine.log").open("ab")
        environ = {**os.environ, "DISTCONV_API_KEY": KEY}
        process = subprocess.Popen(argv, env=environ, stderr=log, stdout=log)
        log.close()
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


def ffmpegs_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def states_of(process: subprocess.Popen[bytes]) -> set[str]:
    return {child.status() for child in ffmpegs_of(process)}


def submit_long(daemon: FakeDaemon, clips: Clips, job_id: str = "1_1") -> None:
    daemon.submit(job_id, clips.long().as_uri(), "hevc", options={"preset": "slow"})


def encoding(job_id: str) -> Callable[[FakeDaemon], object]:
    return lambda d: any(j == job_id and p["phase"] == "encode" for j, p in d.progress)


def test_an_engine_registers_verifies_its_encoders_runs_a_job_reports_it_and_drains(
    daemon: FakeDaemon, start: Start, clips: Clips, tmp_path: Path
) -> None:
    daemon.submit("1_1", clips.plain().as_uri(), "vp9")
    process = start("--slots", "2", "--tags", "fast,gpu")
    daemon.wait_for(lambda d: d.report_of("1_1"))
    assert daemon.beats[0]["status"] == "starting"
    beat = next(beat for beat in daemon.beats if beat["status"] == "idle")
    assert {"h264", "hevc", "vp9"} <= set(beat["supported_codecs"])
    assert beat["slots"] == 2
    assert beat["tags"] == ["fast", "gpu"]
    assert beat["free_gb"] > 0
    assert daemon.benchmarks[0]["benchmark_time"] > 0
    kind, body = daemon.report_of("1_1") or ("", {})
    assert kind == "complete"
    assert body["attempt"] == 1
    assert body["engine_id"] == "e1"
    assert Path(body["output_url"].removeprefix("file://")).is_file()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert daemon.beats[-1]["status"] == "draining"
    assert not list((tmp_path / "work" / "attempts").iterdir())


def test_an_engine_reports_what_it_lacks_and_returns_a_job_whose_source_needs_it(
    daemon: FakeDaemon, start: Start, clips: Clips, tmp_path: Path
) -> None:
    kept = tmp_path / "work" / "self-test.json"
    kept.write_text(
        json.dumps({**json.loads(kept.read_text()), "failed": {"mp4-aac": "No sound."}})
    )
    daemon.submit("1_1", clips.plain().as_uri(), "h264")
    start()
    daemon.wait_for(lambda d: d.report_of("1_1"))
    kind, body = daemon.report_of("1_1") or ("", {})
    assert (kind, body["error_class"], body["needs"]) == ("fail", "incapable", ["mp4-aac"])
    beat = next(beat for beat in daemon.beats if beat["status"] == "idle")
    assert "mp4-aac" not in beat["capabilities"]
    assert "vfr" in beat["capabilities"]
    assert "No sound." in (tmp_path / "engine.log").read_text()


@pytest.mark.parametrize("how", ["heartbeat", "progress"])
@pytest.mark.alone
def test_a_cancelled_job_stops_its_ffmpeg_within_two_seconds(
    how: str, daemon: FakeDaemon, start: Start, clips: Clips, tmp_path: Path
) -> None:
    submit_long(daemon, clips)
    process = start()
    daemon.wait_for(encoding("1_1"))
    assert ffmpegs_of(process)
    if how == "heartbeat":
        daemon.verdicts["1_1"] = "cancel"
    else:
        daemon.progress_status["1_1"] = 409
    wait_until(lambda: not ffmpegs_of(process), 3.5)
    daemon.submit("1_2", clips.plain().as_uri(), "h264")
    daemon.wait_for(lambda d: d.report_of("1_2"))
    assert daemon.report_of("1_1") is None
    assert not list((tmp_path / "out").glob("long*"))


def test_a_killed_engine_leaves_no_ffmpeg_and_its_next_start_reports_the_job_as_lost(
    daemon: FakeDaemon, start: Start, clips: Clips, tmp_path: Path
) -> None:
    submit_long(daemon, clips)
    process = start()
    daemon.wait_for(encoding("1_1"))
    children = ffmpegs_of(process)
    assert children
    process.kill()
    process.wait()
    wait_until(lambda: not any(c.is_running() and c.status() != "zombie" for c in children), 3)
    start()
    daemon.wait_for(lambda d: d.report_of("1_1"))
    kind, body = daemon.report_of("1_1") or ("", {})
    assert (kind, body["error_class"], body["attempt"]) == ("fail", "lost", 1)
    wait_until(lambda: not list((tmp_path / "work" / "attempts").iterdir()))
    assert not list((tmp_path / "work" / "held").iterdir())


def test_sigterm_releases_a_running_job_at_the_deadline(
    daemon: FakeDaemon, start: Start, clips: Clips
) -> None:
    submit_long(daemon, clips)
    process = start("--drain-s", "0.5")
    daemon.wait_for(encoding("1_1"))
    children = ffmpegs_of(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert (daemon.report_of("1_1") or ("",))[0] == "release"
    assert not any(child.is_running() for child in children)


def test_a_second_sigterm_releases_the_job_and_ends_immediately(
    daemon: FakeDaemon, start: Start, clips: Clips
) -> None:
    submit_long(daemon, clips)
    process = start("--drain-s", "60")
    daemon.wait_for(encoding("1_1"))
    process.send_signal(signal.SIGTERM)
    daemon.wait_for(lambda d: d.beats[-1]["status"] == "draining")
    process.send_signal(signal.SIGTERM)
    assert process.wait(8) == 0
    assert (daemon.report_of("1_1") or ("",))[0] == "release"


def test_sigterm_lets_a_job_finish_before_the_deadline(
    daemon: FakeDaemon, start: Start, clips: Clips
) -> None:
    daemon.submit("1_1", clips.plain().as_uri(), "h264")
    process = start("--drain-s", "30")
    daemon.wait_for(lambda d: d.progress)
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    assert (daemon.report_of("1_1") or ("",))[0] == "complete"


def test_an_encode_continues_while_the_daemon_is_unavailable_and_its_result_is_delivered_later(
    daemon: FakeDaemon, start: Start, clips: Clips, tmp_path: Path
) -> None:
    daemon.submit("1_1", clips.long(20).as_uri(), "h264", options={"preset": "medium"})
    start()
    daemon.wait_for(encoding("1_1"))
    daemon.is_unavailable = True
    wait_until(lambda: list((tmp_path / "work" / "outbox").glob("*.json")), 120)
    assert not daemon.reports
    daemon.is_unavailable = False
    daemon.wait_for(lambda d: d.report_of("1_1"))
    assert (daemon.report_of("1_1") or ("",))[0] == "complete"
    assert len(daemon.reports) == 1


def test_the_next_start_delivers_an_unreported_result_without_encoding_again(
    daemon: FakeDaemon, start: Start, clips: Clips, tmp_path: Path
) -> None:
    daemon.report_status.extend([503] * 100)
    daemon.submit("1_1", clips.plain().as_uri(), "h264")
    process = start()
    wait_until(lambda: list((tmp_path / "work" / "outbox").glob("*.json")))
    process.kill()
    process.wait()
    daemon.reports.clear()
    daemon.progress.clear()
    daemon.report_status.clear()
    start()
    daemon.wait_for(lambda d: d.report_of("1_1"))
    assert [kind for _, kind, _ in daemon.reports] == ["complete"]
    assert not daemon.progress


def test_a_lost_reply_to_a_report_does_no_harm(
    daemon: FakeDaemon, start: Start, clips: Clips
) -> None:
    daemon.lose_replies_to = "/complete$"
    daemon.submit("1_1", clips.plain().as_uri(), "h264")
    start()
    daemon.wait_for(lambda d: len(d.reports) >= 2)
    daemon.lose_replies_to = None
    daemon.submit("1_2", clips.plain().as_uri(), "h264")
    daemon.wait_for(lambda d: d.report_of("1_2"))
    reports = [body for job_id, _, body in daemon.reports if job_id == "1_1"]
    assert all(body == reports[0] for body in reports)


def test_two_slots_run_two_jobs_concurrently(
    daemon: FakeDaemon, start: Start, clips: Clips
) -> None:
    submit_long(daemon, clips, "1_1")
    submit_long(daemon, clips, "1_2")
    process = start("--slots", "2")
    daemon.wait_for(lambda d: encoding("1_1")(d) and encoding("1_2")(d))
    wait_until(lambda: any(len(beat["jobs"]) == 2 for beat in daemon.beats))
    assert len(ffmpegs_of(process)) == 4  # for each job an encoder and a concurrent decoder


def test_pause_suspends_the_encode_and_resume_continues_it(
    daemon: FakeDaemon, start: Start, clips: Clips
) -> None:
    submit_long(daemon, clips)
    process = start("--stall-s", "1")
    daemon.wait_for(encoding("1_1"))
    daemon.paused.add("1_1")
    wait_until(lambda: states_of(process) == {psutil.STATUS_STOPPED})
    wait_until(lambda: len(daemon.beats) > 8)  # longer than the stall time
    assert daemon.report_of("1_1") is None
    daemon.paused.clear()
    wait_until(lambda: psutil.STATUS_STOPPED not in states_of(process))
    daemon.verdicts["1_1"] = "cancel"
    wait_until(lambda: not ffmpegs_of(process))


def test_a_requested_benchmark_runs_once_the_running_job_is_paused(
    daemon: FakeDaemon, start: Start, clips: Clips, tmp_path: Path
) -> None:
    submit_long(daemon, clips)
    process = start("--slots", "2", "--poll-s", "0.2")
    daemon.wait_for(encoding("1_1"))
    children = ffmpegs_of(process)
    daemon.benchmark_requested_at = 77
    daemon.wait_for(lambda d: d.beats[-1]["status"] == "benchmarking")
    seen = len(daemon.beats)
    daemon.wait_for(lambda d: len(d.beats) > seen + 3)
    assert len(daemon.benchmarks) == 1  # that of the start: none is run while a job runs
    before = (tmp_path / "work" / "benchmark.json").read_bytes()
    daemon.paused.add("1_1")
    daemon.wait_for(lambda d: len(d.benchmarks) == 2)
    assert {child.status() for child in children} == {psutil.STATUS_STOPPED}
    assert [report.get("requested_at") for report in daemon.benchmarks] == [None, 77]
    assert (tmp_path / "work" / "benchmark.json").read_bytes() != before
    daemon.wait_for(lambda d: d.beats[-1]["status"] == "idle")
    assert set(daemon.beats[-1]["benchmark_fps"]) == set(daemon.beats[-1]["benchmarks"])
    daemon.submit("1_2", clips.plain().as_uri(), "h264")
    daemon.wait_for(lambda d: d.report_of("1_2"))
    assert len(daemon.benchmarks) == 2


def test_the_result_goes_to_the_daemons_media_store_when_nothing_else_is_set(
    daemon: FakeDaemon, start: Start, clips: Clips
) -> None:
    daemon.files["/clip.mp4"] = Served(clips.plain().read_bytes())
    daemon.submit("1_1", f"{daemon.url}/clip.mp4", "h264")
    start("--output", "")
    daemon.wait_for(lambda d: d.report_of("1_1"))
    kind, body = daemon.report_of("1_1") or ("", {})
    assert (kind, body["output_url"]) == ("complete", f"{daemon.url}/media/1_1/clip.mp4")
    assert len(daemon.media["/media/1_1/clip.mp4"]) == body["result"]["size_bytes"]
    assert daemon.puts[0][1]["x-api-key"] == KEY


def test_an_engine_with_a_full_disk_takes_no_job_and_reports_disk_full(
    daemon: FakeDaemon, start: Start, clips: Clips
) -> None:
    daemon.submit("1_1", clips.plain().as_uri(), "h264")
    start("--disk-reserve-mb", "1000000000")
    daemon.wait_for(lambda d: d.beats and d.beats[-1]["status"] == "disk-full")
    assert daemon.queue
    assert not daemon.reports


def test_a_forbidden_source_is_reported_as_not_allowed(daemon: FakeDaemon, start: Start) -> None:
    daemon.submit("1_1", "file:///outside/bad%FF.mp4", "h264")
    start()
    daemon.wait_for(lambda d: d.report_of("1_1"))
    found = daemon.report_of("1_1")
    assert found is not None
    kind, report = found
    assert (kind, report["error_class"]) == ("fail", "not_allowed")
    assert "/outside/bad\\udcff.mp4" in report["error_message"]
    assert "Start it with" in report["error_message"]
