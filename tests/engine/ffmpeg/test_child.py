"""Test that children are stopped as a tree, paused, limited, and killed when stalled."""

import os
import platform
import re
import signal
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest
import trio
import trio.lowlevel

from distconv_engine.failures import EngineFault
from distconv_engine.ffmpeg.child import STOP_GRACE_S, ChildLimits, LineSplitter, open_child
from distconv_engine.ffmpeg.run import Controls, RunResult, check_limits, run
from distconv_engine.ffmpeg.stderr import Diagnosis

pytestmark = pytest.mark.e2e

HAS_SLICES = tuple(map(int, re.findall(r"\d+", platform.release())[:2])) >= (6, 12)
"""Older kernels ignore the requested slice."""
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
STUBBORN_SCRIPT = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
print(child.pid, flush=True)
time.sleep(60)
"""
STUBBORN = [sys.executable, "-c", STUBBORN_SCRIPT]


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_leaving_the_block_ends_the_child() -> None:
    async with open_child(SLEEP) as child:
        assert os.getpgid(child.pid) == child.pid
        # Niceness counts within a session only, where Linux groups by session.
        assert os.getsid(child.pid) == os.getsid(0)
    assert is_gone(child.pid)


async def test_a_child_gets_no_secret_of_the_engines_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("DISTCONV_API_KEY", "AWS_SECRET_ACCESS_KEY", "FFREPORT", "http_proxy"):
        monkeypatch.setenv(name, "s3cret")
    monkeypatch.setenv("LC_TIME", "de_DE.UTF-8")
    seen = bytearray()
    async with open_child(["env"]) as child:
        await child.read_stdout(seen.extend)
    assert b"s3cret" not in seen
    assert b"LC_TIME=de_DE.UTF-8" in seen
    assert b"PATH=" in seen


@pytest.mark.alone
async def test_cancelling_ends_a_stubborn_tree_within_two_seconds() -> None:
    seen = bytearray()
    start = trio.current_time()
    with trio.CancelScope() as scope:

        def take(piece: bytes) -> None:
            seen.extend(piece)
            scope.cancel()

        await run(STUBBORN, Controls(), on_stdout=take)
    assert scope.cancelled_caught
    assert trio.current_time() - start < 4
    with trio.fail_after(2):
        while not is_gone(int(seen)):
            await trio.sleep(0.01)


@pytest.mark.alone
async def test_a_child_without_grace_is_killed_immediately() -> None:
    async with open_child(STUBBORN, grace_s=0) as child:
        seen = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.read_stdout, lambda piece: seen.set())
            await seen.wait()
            nursery.cancel_scope.cancel()
        start = trio.current_time()
    assert is_gone(child.pid)
    assert trio.current_time() - start < STOP_GRACE_S


async def test_a_child_outlives_the_idle_threads_of_trio() -> None:
    """The parent-death signal is tied to the thread that started the child."""
    await trio.to_thread.run_sync(lambda: None)
    async with open_child(SLEEP) as child:
        for thread in threading.enumerate():
            if thread is not threading.main_thread():
                assert thread.is_alive()
        await trio.lowlevel.checkpoint()
        assert psutil.Process(child.pid).ppid() == os.getpid()
        assert not is_gone(child.pid)


async def test_output_error_and_exit_code_are_reported() -> None:
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    out = bytearray()
    result = await run([sys.executable, "-c", script], Controls(), on_stdout=out.extend)
    assert bytes(out) == b"out\n"
    assert result.diagnosis.tail == "err"
    assert result.code == 3


async def test_a_signal_is_a_negative_exit_code() -> None:
    script = "import os; os.kill(os.getpid(), 9)"
    result = await run([sys.executable, "-c", script], Controls())
    assert result.code == -signal.SIGKILL


async def test_a_child_without_progress_and_cpu_use_is_killed_as_stalled() -> None:
    with trio.fail_after(10), pytest.raises(EngineFault) as caught:
        await run(SLEEP, Controls(stall_s=0.5))
    assert "stalled for 0.5 s" in caught.value.message


async def test_a_silent_child_that_uses_cpu_is_not_killed() -> None:
    busy = "import time\nend = time.time() + 1.5\nwhile time.time() < end: pass"
    result = await run([sys.executable, "-c", busy], Controls(stall_s=0.6))
    assert result.code == 0


async def test_a_paused_child_is_stopped_and_not_killed_as_stalled() -> None:
    controls = Controls(stall_s=0.4)
    lives: list[bytes] = []
    ticking = "import time\nwhile True: print('tick', flush=True); time.sleep(0.01)"
    async with trio.open_nursery() as nursery:

        async def tick() -> None:
            await run([sys.executable, "-c", ticking], controls, on_stdout=lives.append)

        nursery.start_soon(tick)
        while not lives:
            await trio.sleep(0.01)
        controls.set_paused(True)
        (child,) = controls.children
        while psutil.Process(child.pid).status() != psutil.STATUS_STOPPED:
            await trio.sleep(0.01)
        await trio.sleep(0.8)  # longer than the stall time: that is the point
        before = len(lives)
        assert controls.children == {child}
        controls.set_paused(False)
        while len(lives) <= before + 1:
            await trio.sleep(0.01)
        controls.set_paused(True)
        nursery.cancel_scope.cancel()
    assert is_gone(child.pid)


async def test_limits_reach_the_child() -> None:
    script = (
        "import os, resource as r; "
        "print(os.nice(0), r.getrlimit(r.RLIMIT_AS)[0], r.getrlimit(r.RLIMIT_CPU)[0])"
    )
    out = bytearray()
    limits = ChildLimits(niceness=7, memory_mb=4000, cpu_s=90)
    result = await run([sys.executable, "-c", script], Controls(limits), on_stdout=out.extend)
    assert result.code == 0
    assert out.split() == [str(max(7, os.nice(0) + 7)).encode(), b"4000000000", b"90"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has SCHED_BATCH")
@pytest.mark.parametrize("batch", [False, True])
async def test_an_encode_runs_as_batch_work_with_its_niceness(batch: bool) -> None:
    script = (
        "import os; print(os.sched_getscheduler(0), os.nice(0)); "
        "print(open('/proc/self/sched').read() if os.path.exists('/proc/self/sched') else '')"
    )
    out = bytearray()
    limits = Controls(ChildLimits(niceness=3))
    await run([sys.executable, "-c", script], limits, on_stdout=out.extend, batch_scheduling=batch)
    first, *rest = out.decode().splitlines()
    policy = os.SCHED_BATCH if batch else os.SCHED_OTHER
    assert first.split() == [str(policy), str(max(3, os.nice(0) + 3))]
    for line in rest:
        name, _, value = line.partition(":")
        if name.strip() == "se.slice" and HAS_SLICES:
            assert (int(value) == 100_000_000) == batch


async def test_a_child_that_exceeds_its_cpu_limit_fails_as_an_engine_fault_that_names_the_setting() -> (
    None
):
    with pytest.raises(EngineFault, match=r"more CPU time than the setting cpu_limit_s \(1\)"):
        await run([sys.executable, "-c", "while True: pass"], Controls(ChildLimits(cpu_s=1)))


UNMAPPED = (
    "error while loading shared libraries: liba.so.1: failed to map segment from shared object"
)
"""What the loader says of memory that it did not get."""


@pytest.mark.parametrize(
    "code,line,limits,words",
    [
        (255, "Exiting normally, received signal 24.", ChildLimits(cpu_s=9), "CPU time"),
        (255, "Exiting normally, received signal 24.", ChildLimits(), None),
        (1, "[error] a.mp4: Out of memory", ChildLimits(memory_mb=60), "more memory"),
        (-9, "[h264 @ 0x1] [error] Cannot allocate memory", ChildLimits(memory_mb=60), "memory"),
        (127, f"ffmpeg: {UNMAPPED}", ChildLimits(memory_mb=60), "more memory"),
        (-11, "", ChildLimits(memory_mb=60), "more memory"),
        (-9, "[h264 @ 0x1] [error] Invalid NAL unit size", ChildLimits(memory_mb=60), None),
        (1, "[error] a.mp4: Out of memory", ChildLimits(), None),
        (0, "[error] Out of memory", ChildLimits(memory_mb=60), None),
    ],
)
def test_an_end_by_the_operators_limits_is_recognized(
    code: int, line: str, limits: ChildLimits, words: str | None
) -> None:
    diagnosis = Diagnosis()
    diagnosis.line(line)
    with pytest.raises(EngineFault, match=words) if words else nullcontext():
        check_limits(RunResult(code, diagnosis), limits)


async def test_a_missing_program_raises_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await run([str(tmp_path / "none")], Controls())


@pytest.mark.alone
async def test_no_descriptor_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await run([sys.executable, "-c", ""], Controls())
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_lines_are_whole_however_the_bytes_are_split() -> None:
    text = "one\nzwei ü\r\n\nlast".encode()
    for size in (1, 2, 3, 100):
        lines: list[str] = []
        splitter = LineSplitter(lines.append)
        for at in range(0, len(text), size):
            splitter.feed(text[at : at + size])
        splitter.close()
        assert lines == ["one", "zwei ü", "", "last"]


def test_a_line_that_never_ends_is_cut_at_its_limit() -> None:
    lines: list[str] = []
    splitter = LineSplitter(lines.append)
    for _ in range(100):
        splitter.feed(b"x" * 10_000)
    splitter.close()
    assert len(lines[0]) <= 8192


_CHATTY = """
import sys
for number in range(300):
    sys.stderr.write(f'line {number}\\n')
    sys.stderr.flush()
"""


async def test_the_end_of_a_child_does_not_wait_for_the_pause_between_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distconv_engine.ffmpeg.child._STDERR_PAUSE_S", 60.0)
    with trio.fail_after(30):
        result = await run([sys.executable, "-c", _CHATTY], Controls())
    assert result.diagnosis.tail.endswith("line 299")


async def test_small_pieces_of_standard_error_are_read_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distconv_engine.ffmpeg.child._STDERR_PAUSE_S", 60.0)
    pieces: list[bytes] = []
    async with open_child([sys.executable, "-c", _CHATTY]) as child, trio.open_nursery() as nursery:
        nursery.start_soon(child.read_stderr, pieces.append)
        await child.wait_ended()
    assert b"".join(pieces).splitlines()[-1] == b"line 299"
    assert len(pieces) <= 3


async def test_a_run_that_has_to_be_silent_ends_at_its_first_message() -> None:
    script = "import sys, time; print('odd', file=sys.stderr, flush=True); time.sleep(60)"
    with trio.fail_after(30):
        result = await run([sys.executable, "-c", script], Controls(), stop_on_message=True)
    assert (result.code, result.diagnosis.tail) == (-signal.SIGKILL, "odd")


async def test_much_standard_error_is_read_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distconv_engine.ffmpeg.child._STDERR_PAUSE_S", 60.0)
    flood = "import sys; sys.stderr.write('x' * 2_000_000)"  # more than a pipe takes
    with trio.fail_after(30):
        assert (await run([sys.executable, "-c", flood], Controls())).code == 0


def test_frames_that_got_no_memory_under_a_limit_are_not_the_sources_damage() -> None:
    """ffmpeg drops them, goes on and exits with 0."""
    diagnosis = Diagnosis()
    diagnosis.line("[h264 @ 0x1] [error] Could not allocate memory")
    diagnosis.damage.append("video: a frame cannot be decoded")
    with pytest.raises(EngineFault, match="memory_limit_mb"):
        check_limits(RunResult(0, diagnosis), ChildLimits(memory_mb=60))
