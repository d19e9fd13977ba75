"""Clips made once a run with a real ffmpeg, a fake daemon, and a workshop to run attempts in."""

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
from tests.engine.clips import Clips
from tests.engine.daemon import FakeDaemon, running_daemon
from tests.engine.measured import Measured
from tests.engine.pipeline.rows import all_rows
from tests.engine.pipeline.verdicts import Verdicts
from tests.once import once, run_folder

from distconv_engine.attempts.context import Attempt, EngineContext
from distconv_engine.attempts.journal import Journal
from distconv_engine.attempts.progress_tracker import Tracker
from distconv_engine.config import Config
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools, find_tools
from distconv_engine.host.benchmark import measure
from distconv_engine.host.capabilities import Capabilities, VerifiedEncoder, verify_encoders
from distconv_engine.logs import Log
from distconv_engine.media.ffmpeg import Ffmpeg
from distconv_engine.pipeline.run import run_attempt
from distconv_engine.self_test.outcome import FILE
from distconv_engine.self_test.run import self_test
from distconvd.model import CompleteReport, Job

OTHER_FFMPEG = os.environ.get("DISTCONV_TEST_FFMPEG") or None
"""The engine's ffmpeg in these tests: `system` or a path, as the setting takes it; else the bundled."""
BEYOND_5_1 = {
    "test_damage_that_container_or_decoder_detects_is_an_input_failure[gif-cut-95]": "ffmpeg 5.1 "
    "decodes a truncated GIF without an error",
    "test_recordings_concatenated_in_a_format_whose_clock_may_restart_are_converted_whole[ogg]": "ffmpeg "
    "5.1 decodes the header of a second Opus recording in an Ogg file as audio",
}
"""Tests that ffmpeg 5.1 fails, whatever arguments it gets, with the reason."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if OTHER_FFMPEG is None or not find_tools(OTHER_FFMPEG).version.startswith("5.1"):
        return
    for item in items:
        if reason := BEYOND_5_1.get(item.name):
            item.add_marker(pytest.mark.xfail(reason=reason))


@pytest.fixture(scope="session")
def tools() -> Tools:
    """The engine's ffmpeg: the bundled one, or that of `DISTCONV_TEST_FFMPEG`."""
    return find_tools(OTHER_FFMPEG)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """Sources, made with the bundled ffmpeg whichever one the engine has: they come from anywhere."""
    folder = run_folder(tmp_path_factory) / "clips"
    folder.mkdir(exist_ok=True)
    return Clips(find_tools(None), folder)


@pytest.fixture(scope="session")
def capabilities(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Capabilities:
    folder = tmp_path_factory.mktemp("trials")

    async def run() -> Capabilities:
        return await verify_encoders(Ffmpeg(tools, Controls()), folder, hardware=False)

    return once(run_folder(tmp_path_factory) / "capabilities", lambda: trio.run(run))


@pytest.fixture(scope="session")
def benchmark(
    tools: Tools, capabilities: Capabilities, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """A benchmark's cache."""
    cache = tmp_path_factory.mktemp("benchmark") / "benchmark.json"

    async def run() -> bytes:
        await measure(Ffmpeg(tools, Controls()), capabilities, cache)
        return cache.read_bytes()

    return once(run_folder(tmp_path_factory) / "benchmark", lambda: trio.run(run))


@pytest.fixture(scope="session")
def tested(
    tools: Tools, capabilities: Capabilities, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """The outcome of a self-test."""
    folder = tmp_path_factory.mktemp("self-test")

    async def run() -> bytes:
        async with httpx.AsyncClient() as client:
            journal = Journal(folder / "held", Log())
            context = EngineContext(Config(), "e1", tools, capabilities, client, journal, Log())
            await self_test(context, folder / "clips", folder / FILE)
        return (folder / FILE).read_bytes()

    return once(run_folder(tmp_path_factory) / "self-test", lambda: trio.run(run))


@pytest.fixture(scope="session")
def measured(benchmark: bytes, tested: bytes) -> Measured:
    return Measured(benchmark, tested)


@pytest.fixture(scope="session")
def verdicts(tools: Tools) -> Iterator[Verdicts]:
    """What `docs/verdicts.md` says; a run that updates the docs rewrites it at its end."""
    found = Verdicts(tools.version)
    yield found
    found.write(all_rows())


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    with running_daemon() as found:
        yield found


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(follow_redirects=True) as found:
        yield found


def of_one_ffmpeg(capabilities: Capabilities, tools: Tools) -> Capabilities:
    """Return the same, all done by the ffmpeg of `tools`."""
    by_codec = {
        codec: tuple(VerifiedEncoder(row.encoder, tools) for row in rows)
        for codec, rows in capabilities.by_codec.items()
    }
    return Capabilities(by_codec, dict.fromkeys(capabilities.readers, (tools.ffmpeg,)))


Run = Callable[..., Any]


@pytest.fixture
def run_job(
    tools: Tools, capabilities: Capabilities, client: httpx.AsyncClient, tmp_path: Path
) -> Run:
    """Run one job through the real pipeline, without an agent; returns its report or raises."""

    async def run(source: Path | str, codec: str = "h264", **settings: Any) -> CompleteReport:
        options = settings.pop("options", {})
        output = settings.pop("output", None)
        sha256 = settings.pop("source_sha256", None)
        job_id = settings.pop("job_id", "1_1")
        job_size = settings.pop("job_size", 0.0)
        tracker = settings.pop("tracker", None) or Tracker()
        controls = settings.pop("controls", None) or Controls()
        own_tools = settings.pop("tools", tools)
        own_capabilities = settings.pop("capabilities", capabilities)
        lacking = settings.pop("lacking", frozenset())
        url = source if isinstance(source, str) else source.as_uri()
        roots = settings.pop("source_root", None)
        if roots is None:
            roots = [source.parent] if isinstance(source, Path) else []
        work = tmp_path / "work"
        values = {
            "work_dir": work,
            "output": settings.pop("place", str(tmp_path / "out")),
            "source_root": roots,
            "disk_reserve_mb": 0,
            **settings,
        }
        config = Config(**values)
        folder = work / "attempts" / job_id.replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        log = Log()
        journal = Journal(work / "held", log)
        context = EngineContext(
            config, "e1", own_tools, own_capabilities, client, journal, log, lacking=lacking
        )
        job = _job(job_id, url, codec, options, output, sha256, job_size)
        return await run_attempt(Attempt(context, job, folder, tracker, controls))

    return run


def _job(
    job_id: str,
    url: str,
    codec: str,
    options: Any,
    output: Any,
    sha256: str | None,
    job_size: float,
) -> Job:
    fields = {
        "job_id": job_id,
        "source_url": url,
        "target_codec": codec,
        "attempt": 1,
        "options": options,
        "output": output,
        "source_sha256": sha256,
        "job_size": job_size,
    }
    return msgspec.convert(fields, Job)


def probe_streams(tools: Tools, path: Path) -> list[str]:
    argv = [tools.ffprobe, "-v", "error", "-show_entries", "stream=codec_type,codec_name"]
    argv += ["-of", "csv=p=0", str(path)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
