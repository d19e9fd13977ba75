"""Run ffmpeg and ffprobe for an attempt: consume their output, end stalls, apply pauses.

A stall is no progress *and* no CPU use for `stall_s`. Age alone never ends anything: an encode of a
long film may take a day.
"""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import trio

from distconv_engine.failures import EngineFault
from distconv_engine.ffmpeg.child import STOP_GRACE_S, Child, ChildLimits, LineSplitter, open_child
from distconv_engine.ffmpeg.stderr import Diagnosis

CPU_IDLE_S = 0.05
"""CPU seconds between two checks that count as no use: a sleeping ffmpeg still wakes up."""
_CHECKS_PER_STALL = 8
_XCPU = f"received signal {int(signal.SIGXCPU)}"
"""What ffmpeg logs when it ends itself after SIGXCPU."""
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS})
"""How a program ends that does not check whether it got the memory that it asked for."""


@dataclass(slots=True)
class Controls:
    """What an attempt grants its children, and the means to pause them."""

    limits: ChildLimits = field(default_factory=ChildLimits)
    stall_s: float = 120.0
    paused: bool = False
    children: set[Child] = field(default_factory=set[Child])

    def set_paused(self, paused: bool) -> None:
        """Pause or resume the children that run now, and those that start later."""
        if paused == self.paused:
            return
        self.paused = paused
        for child in self.children:
            if paused:
                child.pause()
            else:
                child.resume()


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended."""

    code: int
    diagnosis: Diagnosis


class RunOptions(TypedDict, total=False):
    """The options of `run`, for those who pass them on."""

    on_stdout: Callable[[bytes], None]
    sign_of_life: Callable[[], object] | None
    stop_on_damage: bool
    stop_on_message: bool
    cwd: Path | None
    stdin: int | None
    pass_fds: Sequence[int]
    grace_s: float
    batch_scheduling: bool


def _nothing(_: bytes) -> None:
    """Drop the output."""


async def run(
    argv: Sequence[str],
    controls: Controls,
    *,
    on_stdout: Callable[[bytes], None] = _nothing,
    sign_of_life: Callable[[], object] | None = None,
    stop_on_damage: bool = False,
    stop_on_message: bool = False,
    cwd: Path | None = None,
    stdin: int | None = None,
    pass_fds: Sequence[int] = (),
    grace_s: float = STOP_GRACE_S,
    batch_scheduling: bool = False,
) -> RunResult:
    """Run `argv` to its end.

    Args:
        argv: the program and its arguments.
        controls: limits, stall time and pause.
        on_stdout: consumes standard output.
        sign_of_life: returns something that changes as long as there is progress; without it,
            only output and CPU time count.
        stop_on_damage: end it at the first proof of damage, or if the program lacks something that
            the source needs, since its output is worthless.
        stop_on_message: end it at the first line of any kind: only a silent run is of use.
        cwd: where it runs.
        stdin: a descriptor for its standard input; stays the caller's.
        pass_fds: more descriptors that it inherits, under the same numbers.
        grace_s: see `open_child`.
        batch_scheduling: whether it is an encode, which keeps its cores longer: see `become_batch`.

    Raises:
        EngineFault: it stalled, or went beyond the limits of the attempt.
    """
    diagnosis = Diagnosis()
    activity = _Activity()

    def take(piece: bytes) -> None:
        activity.pieces += 1
        on_stdout(piece)

    async with open_child(
        argv,
        cwd=cwd,
        limits=controls.limits,
        stdin=stdin,
        pass_fds=pass_fds,
        grace_s=grace_s,
        batch_scheduling=batch_scheduling,
    ) as child:
        controls.children.add(child)

        def note(line: str) -> None:
            diagnosis.line(line)
            is_worthless = diagnosis.damage or diagnosis.lacks
            if (stop_on_damage and is_worthless) or (stop_on_message and diagnosis.tail):
                child.kill()

        lines = LineSplitter(note)
        if controls.paused:
            child.pause()
        try:
            async with trio.open_nursery() as watchers:
                life = sign_of_life or (lambda: activity.pieces)
                watchers.start_soon(_watch_for_stall, child, controls.stall_s, life, activity)
                async with trio.open_nursery() as readers:
                    readers.start_soon(child.read_stdout, take)
                    readers.start_soon(child.read_stderr, lines.feed)
                    await child.wait_ended()
                code = await child.wait()
                watchers.cancel_scope.cancel()
        finally:
            controls.children.discard(child)
        lines.close()
    if activity.stalled:
        raise EngineFault(
            f"ffmpeg stalled for {controls.stall_s:g} s (no progress, no CPU use) and was killed.",
            log_tail=diagnosis.tail,
        )
    result = RunResult(code, diagnosis)
    check_limits(result, controls.limits)
    return result


def check_limits(result: RunResult, limits: ChildLimits) -> None:
    """Raise `EngineFault` if the operator's limits ended a child, whatever else its end looks
    like: the source is not at fault, and another engine may grant more."""
    code, tail = result.code, result.diagnosis.tail
    if limits.cpu_s is not None and (code == -signal.SIGXCPU or (code and _XCPU in tail)):
        words = f"ffmpeg used more CPU time than the setting cpu_limit_s ({limits.cpu_s:g}) allows."
        raise EngineFault(words, log_tail=tail)
    found = result.diagnosis
    # A decoder that gets no memory drops its frame, and ffmpeg may well go on and exit with 0.
    failed = code or found.damage or found.doubts or found.decode_errors
    starved = found.out_of_memory or -code in _CRASHES
    if limits.memory_mb is not None and failed and starved:
        words = f"ffmpeg needs more memory than memory_limit_mb ({limits.memory_mb:g}) allows."
        raise EngineFault(words, log_tail=tail)


@dataclass(slots=True)
class _Activity:
    pieces: int = 0
    stalled: bool = False


async def _watch_for_stall(
    child: Child, stall_s: float, sign_of_life: Callable[[], object], activity: _Activity
) -> None:
    """Stop the child once neither its progress nor its CPU time has moved for `stall_s`."""
    if stall_s == float("inf"):
        return
    moved_at, life, cpu_s = trio.current_time(), sign_of_life(), 0.0
    while True:
        await trio.sleep(stall_s / _CHECKS_PER_STALL)
        now_life, now_cpu_s = sign_of_life(), child.cpu_seconds()
        if now_life != life or now_cpu_s - cpu_s > CPU_IDLE_S or child.paused:
            moved_at, life, cpu_s = trio.current_time(), now_life, now_cpu_s
        elif trio.current_time() - moved_at >= stall_s:
            activity.stalled = True
            child.kill()
            return
