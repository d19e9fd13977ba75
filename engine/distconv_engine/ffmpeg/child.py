"""Run a child process in its own group, stop it as a tree, and end it if the engine dies.

`subprocess` starts the child, without a shell, in the main thread; `trio.lowlevel.open_process`
does not. The kernel ties the parent-death signal to the *thread* that started the child, and trio
uses worker threads, which end after a time without work: that would kill an ffmpeg in mid-encode.
(`preexec_fn` only calls functions that were looked up before, so it is safe after a fork.)

Children stay in the engine's session: on a desktop, Linux divides the cores among sessions first
(`sched_autogroup_enabled`), and a process's niceness counts only within its own session.

Resource handling: `open_child` never leaves its block with the child alive, whatever happens.
"""

import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import trio

from distconv_engine.ffmpeg.environment import child_environment
from distconv_engine.ffmpeg.scheduling import become_batch

STOP_GRACE_S = 0.5
"""Between SIGTERM and SIGKILL. The output of a stopped child is discarded, and a cancel that
arrives with the answer to a progress report, up to a second late, must still end the tree within 2 s."""
XCPU_GRACE_S = 5
"""Between the CPU limit's SIGXCPU and its SIGKILL, in seconds of CPU time."""
_PR_SET_PDEATHSIG = 1
_LINE_BYTES_MAX = 8192
_READ_BYTES = 65536
_STDERR_PAUSE_S, _STDERR_PAUSE_BYTES_MAX = 0.25, 4096
"""The pause between two reads of standard error, after a read of few bytes: ffmpeg writes a line in
several pieces, hundreds a run, and each would wake the engine while the encoder needs the CPU."""


def _find_prctl() -> Callable[[int, int], int] | None:
    """Return Linux's prctl; other systems have none, and no parent-death signal."""
    try:
        function = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_ulong]
    return function


_PRCTL = _find_prctl()


@dataclass(frozen=True, slots=True)
class ChildLimits:
    """What the operator grants one child."""

    niceness: int = 0
    memory_mb: float | None = None
    cpu_s: float | None = None


class Child:
    """A running process; made by `open_child`."""

    def __init__(self, popen: subprocess.Popen[bytes], grace_s: float) -> None:
        assert popen.stdout is not None
        assert popen.stderr is not None
        self.pid = popen.pid
        self.paused = False
        self._popen = popen
        self._grace_s = grace_s
        # FdStream and Popen each close their descriptors, so each gets its own.
        self._stdout = trio.lowlevel.FdStream(os.dup(popen.stdout.fileno()))
        self._stderr = trio.lowlevel.FdStream(os.dup(popen.stderr.fileno()))
        popen.stdout.close()
        popen.stderr.close()
        self._pidfd = os.pidfd_open(popen.pid) if hasattr(os, "pidfd_open") else None
        self._end_seen = trio.Event()
        """Set once it has ended, reaped or not; where that cannot be seen, from the start."""
        if self._pidfd is None:
            self._end_seen.set()

    async def wait_ended(self) -> None:
        """Wait until it has ended, without reaping it: its output may have to be read still."""
        if self._pidfd is not None and not self._end_seen.is_set():
            await trio.lowlevel.wait_readable(self._pidfd)
            self._end_seen.set()

    async def wait(self) -> int:
        """Wait for the end; returns the exit code, or minus the signal. One waiter at a time."""
        if self._pidfd is None:  # not Linux
            return await trio.to_thread.run_sync(self._popen.wait, abandon_on_cancel=True)
        if self._popen.returncode is None:
            await self.wait_ended()
            # Not reaped yet, so the group's number is still its own: end the rest of the group.
            self._signal(signal.SIGKILL)
        return self._popen.wait()

    async def read_stdout(self, consume: Callable[[bytes], None]) -> None:
        """Pass every piece of standard output to `consume`, until it ends."""
        while piece := await self._stdout.receive_some(_READ_BYTES):
            consume(piece)

    async def read_stderr(self, consume: Callable[[bytes], None]) -> None:
        """Pass standard error to `consume`, until it ends; while the child runs, in larger pieces."""
        while piece := await self._stderr.receive_some(_READ_BYTES):
            consume(piece)
            if len(piece) < _STDERR_PAUSE_BYTES_MAX:
                with trio.move_on_after(_STDERR_PAUSE_S):
                    await self._end_seen.wait()

    def pause(self) -> None:
        """Suspend the whole tree where it is, without losing anything."""
        self.paused = True
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused tree continue."""
        self.paused = False
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL the whole tree, without waiting for it."""
        if self._popen.returncode is None:
            self._signal(signal.SIGKILL)

    def cpu_seconds(self) -> float:
        """CPU time used so far, in seconds; 0 once it has ended."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    async def stop(self) -> None:
        """End the whole tree: SIGTERM, then SIGKILL after its grace."""
        if self._popen.returncode is not None:
            return
        if self._grace_s > 0:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # a paused process sees SIGTERM only when it continues
            with trio.move_on_after(self._grace_s):
                await self.wait()
        if self._popen.returncode is None:
            self._signal(signal.SIGKILL)
            await self.wait()

    async def aclose(self) -> None:
        """Stop it and release its descriptors."""
        await self.stop()
        if self._pidfd is not None:
            os.close(self._pidfd)
        await self._stdout.aclose()
        await self._stderr.aclose()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # it has ended meanwhile


@asynccontextmanager
async def open_child(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    limits: ChildLimits | None = None,
    stdin: int | None = None,
    pass_fds: Sequence[int] = (),
    grace_s: float = STOP_GRACE_S,
    batch_scheduling: bool = False,
) -> AsyncGenerator[Child, None]:
    """Start `argv` and yield it; it is dead and reaped when the block is left.

    `grace_s`: how long it may take to end after SIGTERM; 0: it gets SIGKILL immediately.
    `batch_scheduling`: see `become_batch`.
    """
    parent = os.getpid()
    granted = limits or ChildLimits()
    popen = subprocess.Popen(  # noqa: ASYNC220 - in this thread on purpose: see the module
        list(argv),
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=child_environment(os.environ),
        pass_fds=pass_fds,
        process_group=0,
        preexec_fn=lambda: _in_child(parent, granted, batch_scheduling),
    )
    child = Child(popen, grace_s)
    try:
        yield child
    finally:
        with trio.CancelScope(shield=True):
            await child.aclose()


def _in_child(parent: int, limits: ChildLimits, batch_scheduling: bool) -> None:
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the engine died before the line above
            os._exit(1)
    if limits.niceness:
        os.nice(limits.niceness)
    if batch_scheduling:
        become_batch()
    if limits.memory_mb is not None:
        _limit(resource.RLIMIT_AS, limits.memory_mb * 1e6)
    if limits.cpu_s is not None:  # SIGXCPU, which says why, and SIGKILL only after that
        _limit(resource.RLIMIT_CPU, limits.cpu_s, XCPU_GRACE_S)


def _limit(which: int, amount: float, grace: int = 0) -> None:
    value = max(1, int(amount))
    resource.setrlimit(which, (value, value + grace))


class LineSplitter:
    """Splits pieces of bytes into lines of text, each bounded, and passes them on."""

    def __init__(self, consume: Callable[[str], None]) -> None:
        self._consume = consume
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        *lines, rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._consume(_text(line))
        self._rest = rest[:_LINE_BYTES_MAX]

    def close(self) -> None:
        """Pass on a last line that has no end."""
        if self._rest:
            self._consume(_text(self._rest))
            self._rest = b""


def _text(line: bytes) -> str:
    return line[:_LINE_BYTES_MAX].decode("utf-8", "replace").rstrip("\r")
