"""Test a real engine process that loses its websocket in the middle of an encode."""

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
from tests.engine.clips import Clips
from tests.engine.conftest import benchmark, capabilities, clips, measured, tested, tools
from tests.engine.measured import Measured

from distconvd.config import load_config
from distconvd.daemon import Parts, assemble, run
from distconvd.dispatch.queries import get_job
from distconvd.dispatch.records import decode_job
from distconvd.dispatch.submit import cancel, patch, submit
from distconvd.edge.listeners import open_listeners
from distconvd.model import Job, JobPatch, JobStatus, Submission, TranscodeOptions
from distconvd.plugin_host.loading import Plugins

__all__ = ["benchmark", "capabilities", "clips", "measured", "tested", "tools"]

pytestmark = pytest.mark.e2e
KEY = "e2e-key"


class Site:
    """A daemon on loopback and one engine process."""

    def __init__(self, parts: Parts, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.parts = parts
        self._process = process
        self._log = log

    async def submit(self, clips: Clips, preset: str, seconds: int = 60) -> str:
        options = TranscodeOptions(preset=preset)
        job = Submission(clips.long(seconds).as_uri(), "hevc", options=options)
        record: bytes = await self.parts.ledger.execute(submit, job)
        return decode_job(record).job_id

    async def job(self, job_id: str) -> Job:
        return decode_job(await self.parts.ledger.execute(get_job, job_id))

    async def wait_until(self, seen: Callable[[], Any], timeout_s: float = 120.0) -> None:
        """Poll until a condition that only another process can bring about."""
        with trio.move_on_after(timeout_s):
            while not seen():
                await trio.sleep(0.02)
            return
        raise AssertionError(self._log.read_text()[-4000:])

    @property
    def session(self) -> Any:
        return self.parts.push.sessions.get("e1")

    def is_encoding(self, job_id: str) -> bool:
        progress = self.parts.dispatcher.state.progress.get(job_id)
        return progress is not None and progress.phase == "encode" and bool(self.ffmpegs())

    def ffmpegs(self) -> list[psutil.Process]:
        return psutil.Process(self._process.pid).children(recursive=True)


@asynccontextmanager
async def open_site(clips: Clips, measured: Measured, folder: Path) -> AsyncGenerator[Site]:
    config = load_config({"api_key": KEY, "store": "memory"}, {}).config
    parts = await assemble(config, Plugins([]))
    listeners = await open_listeners("127.0.0.1", 0)
    port = listeners[0].socket.getsockname()[1]
    work = folder / "work"
    work.mkdir()
    measured.keep_in(work)
    argv = [sys.executable, "-m", "distconv_engine.main", "--server", f"http://127.0.0.1:{port}"]
    argv += ["--work-dir", str(work), "--output", str(folder / "out"), "--engine-id", "e1"]
    argv += ["--source-root", str(clips.folder), "--disk-reserve-mb", "0", "--poll-s", "30"]
    log = folder / "engine.log"
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(run, parts, list(listeners), stop)
        with log.open("wb") as file:
            environ = {**os.environ, "DISTCONV_API_KEY": KEY}
            process = subprocess.Popen(argv, env=environ, stdout=file, stderr=file)
        try:
            yield Site(parts, process, log)
        finally:
            process.kill()
            process.wait()
            stop.set()


async def test_losing_the_socket_during_an_encode_does_not_affect_the_job(
    clips: Clips, measured: Measured, tmp_path: Path
) -> None:
    async with open_site(clips, measured, tmp_path) as site:
        await site.wait_until(lambda: site.session is not None)
        job_id = await site.submit(clips, "fast", seconds=4)
        await site.wait_until(lambda: site.is_encoding(job_id))
        children = site.ffmpegs()
        for child in children:
            child.suspend()  # so that the encode cannot end before the socket is open again
        lost = site.session
        lost.close(1013, "a test")
        await site.wait_until(lambda: site.session not in (None, lost))
        assert {child.pid for child in children} == {child.pid for child in site.ffmpegs()}
        for child in children:
            child.resume()
        await site.wait_until(lambda: site.parts.dispatcher.state.statuses[JobStatus.COMPLETED])
        job = await site.job(job_id)
        assert (job.status, job.attempt) == ("completed", 1)
        # Work then arrives over the new one.
        again = await site.submit(clips, "fast")
        await site.wait_until(lambda: site.is_encoding(again))


@pytest.mark.alone
async def test_pause_resume_and_cancel_over_the_socket_reach_ffmpeg_within_two_seconds(
    clips: Clips, measured: Measured, tmp_path: Path
) -> None:
    async with open_site(clips, measured, tmp_path) as site:
        await site.wait_until(lambda: site.session is not None)
        job_id = await site.submit(clips, "slow")
        await site.wait_until(lambda: site.is_encoding(job_id))
        children = site.ffmpegs()  # the encoder and the concurrent decoder
        # Sooner than any heartbeat: these are 10 s apart.
        await site.parts.ledger.execute(patch, job_id, JobPatch(paused=True))
        stopped = psutil.STATUS_STOPPED
        await site.wait_until(lambda: all(c.status() == stopped for c in children), 2.0)
        await site.parts.ledger.execute(patch, job_id, JobPatch(paused=False))
        await site.wait_until(lambda: all(c.status() != stopped for c in children), 2.0)
        assert (await site.job(job_id)).status == JobStatus.ASSIGNED
        await site.parts.ledger.execute(cancel, job_id)
        await site.wait_until(lambda: not site.ffmpegs(), 2.0)
