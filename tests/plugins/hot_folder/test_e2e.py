"""A real clip is dropped into a hot folder; a real daemon and a real engine convert it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distconv_engine.ffmpeg.tools import Tools, find_tools

pytestmark = pytest.mark.e2e
DEADLINE_S = 120.0
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def tools() -> Tools:
    return find_tools(None)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start our commands; those that still run at the end are stopped, and must exit cleanly."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(module: str, *flags: str) -> subprocess.Popen[bytes]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("DISTCONV_")}
        with (tmp_path / f"{module}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", f"from {module} import main; main()", *flags],
                env=environ,
                stdout=log,
                stderr=log,
            )
        running.append(process)
        return process

    yield begin
    for process in reversed(running):
        process.send_signal(signal.SIGTERM)
    codes = [process.wait(30) for process in running]
    assert codes == [0] * len(running)


def wait_for(is_there: Callable[[], object], tmp_path: Path) -> None:
    """Poll until it is there; another process makes it, so there is no event to wait for."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_there():
        if time.monotonic() > deadline:
            logs = "".join(log.read_text()[-3000:] for log in tmp_path.glob("*.log"))
            pytest.fail(f"not seen in {DEADLINE_S} s\n{logs}")
        time.sleep(0.1)


def test_a_clip_that_is_dropped_is_converted_once_whatever_is_restarted_or_renamed(
    tmp_path: Path, tools: Tools, start: Start
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    watch = tmp_path / "watch"
    (watch / "vp9").mkdir(parents=True)
    (watch / "vp9" / "distconv.toml").write_text(
        'output = "ready"\nlabels = { show = "test" }\n[options]\nmax_height = 60\ncrf = 40\n'
    )
    daemon_flags = ["--port", str(port), "--state-file", str(tmp_path / "state.json")]
    for setting in (f"watch={watch}", "settle_s=0.5", "poll_s=0.2"):
        daemon_flags += ["--set", f"plugin.hot-folder.{setting}"]
    daemon = start("distconvd.main", *daemon_flags)
    engine_flags = ["--server", f"http://127.0.0.1:{port}", "--source-root", str(watch)]
    engine_flags += ["--work-dir", str(tmp_path / "work"), "--engine-id", "e1"]
    start("distconv_engine.main", *engine_flags, "--disk-reserve-mb", "0", "--poll-s", "1")
    clip = make_clip(tools, tmp_path / "clip.mov")
    clip.rename(watch / "vp9" / "holiday 2024.mov")

    report_file = watch / "vp9/ready/holiday 2024.mov.report.json"
    wait_for(report_file.exists, tmp_path)
    report = json.loads(report_file.read_bytes())
    result = watch / "vp9/ready/holiday 2024.webm"
    assert report["status"] == "completed", report
    assert report["output_url"] == result.as_uri()
    assert report["output_size_bytes"] == result.stat().st_size
    assert probe(tools, result) == "vp9,80,60"

    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    (watch / "vp9/holiday 2024.mov").rename(watch / "vp9/renamed.mov")
    another = start("distconvd.main", *daemon_flags)
    make_clip(tools, tmp_path / "two.mov", "3").rename(watch / "vp9/second.mov")
    wait_for((watch / "vp9/ready/second.mov.report.json").exists, tmp_path)
    state = json.loads((tmp_path / "state.json").read_bytes())
    assert len(state["jobs"]) <= 2
    assert sorted(p.name for p in (watch / "vp9/ready").glob("*.json")) == [
        "holiday 2024.mov.report.json",
        "second.mov.report.json",
    ]
    assert another.poll() is None
    daemon.returncode = 0  # killed by this test, so its exit code is not checked


def make_clip(tools: Tools, path: Path, seconds: str = "1") -> Path:
    source = ["-f", "lavfi", "-i", f"testsrc2=s=160x120:r=25:d={seconds}"]
    encode = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run([tools.ffmpeg, "-v", "error", "-nostdin", *source, *encode], check=True)
    return path


def probe(tools: Tools, path: Path) -> str:
    argv = [tools.ffprobe, "-v", "error", "-show_entries", "stream=codec_name,width,height"]
    done = subprocess.run([*argv, "-of", "csv=p=0", str(path)], capture_output=True, check=True)
    return done.stdout.decode().strip()
