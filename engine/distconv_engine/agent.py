"""The engine's life: clean up, register, prove what it can, work, drain.

Everything runs in one nursery: heartbeats, the outbox, one poller, and a task for each job. The
daemon being away never stops an encode. A slot is free again once its job's report is acknowledged,
since until then the daemon would hand out the same job again.
"""

import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx
import trio

from distconv_engine.attempts.active import ActiveAttempt
from distconv_engine.attempts.context import Attempt, EngineContext, token_of
from distconv_engine.attempts.journal import Journal, remove_partials
from distconv_engine.attempts.progress_tracker import Tracker
from distconv_engine.backoff import Backoff
from distconv_engine.benchmark_schedule import BenchmarkScheduler
from distconv_engine.daemon_link.heartbeats import Heartbeats
from distconv_engine.daemon_link.http import DaemonApi, DaemonUnavailable, Rejected
from distconv_engine.daemon_link.outbox import Outbox
from distconv_engine.daemon_link.socket import open_socket
from distconv_engine.daemon_link.websocket import PushLink
from distconv_engine.errors import ConfigError
from distconv_engine.ffmpeg.child import ChildLimits
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.host.benchmark import Benchmark, measure
from distconv_engine.host.capabilities import verify_encoders
from distconv_engine.job_task import JobTask
from distconv_engine.logs import Log
from distconv_engine.status import EngineStatus
from distconvd.model import BenchmarkReport, FailReport, FailureClass, Job, ReleaseReport

DELIVER_S = 5.0
"""How long a drained engine tries to deliver its last reports; they are on disk anyway."""
POLL_PAUSE_S = 1.0
"""Between two requests for work that do not wait at the daemon."""


class Agent:
    """One engine. `run` returns when it has drained or was told to quit."""

    def __init__(
        self, engine_status: EngineStatus, tools: Tools, client: httpx.AsyncClient, log: Log
    ) -> None:
        config = engine_status.config
        self.encoders_verified = trio.Event()
        """The engine knows what it can do, and how fast."""
        self._engine_status = engine_status
        self._config = config
        self._tools = tools
        self._client = client
        self._log = log
        self._api = DaemonApi(client, config.server, config.api_key)
        engine_id = self._engine_id = engine_status.engine_id
        open_link = partial(open_socket, config.server, engine_id, config.api_key)
        self._link = PushLink(
            open_link, engine_status.active_attempts, log, self._benchmark_asked, self._replaced
        )
        self._scheduler = BenchmarkScheduler(engine_status, log)
        engine_status.on_benchmark_request = self._benchmark_asked
        self._api.link = self._link
        self._outbox = Outbox(config.work_dir / "outbox", self._api, log)
        engine_status.unacked_reports = self._outbox.for_heartbeat
        self._journal = Journal(config.work_dir / "held", log)
        self._heartbeats = Heartbeats(self._api, engine_status, log)
        self._attempts_dir = config.work_dir / "attempts"
        self._slots = trio.Semaphore(config.slots)
        self._jobs = 0
        self._idle = trio.Event()
        self._idle.set()
        self._polling = trio.CancelScope()
        self._quitting = trio.Event()
        self._is_replaced = False

    # ------------------------------------------------------------------------------------- life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until drained; `started` once the engine is registered and asks for work.

        Raises `ConfigError` when it drained because another engine has its id.
        """
        await self._recover()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._heartbeats.run)
            nursery.start_soon(self._outbox.run)
            nursery.start_soon(self._work, nursery, task_status)
            if self._config.push == "auto":
                nursery.start_soon(self._keep_link)
            await self._engine_status.draining.wait()
            await self._drain()
            nursery.cancel_scope.cancel()
        if self._is_replaced:
            raise ConfigError(f"Another engine took over the engine_id {self._engine_id!r}.")

    def drain(self) -> None:
        """Take nothing new; let running jobs go on for `drain_s`, then give them back."""
        self._log.info("draining", jobs=self._jobs, drain_s=self._config.drain_s)
        self._engine_status.draining.set()
        self._polling.cancel()
        self._heartbeats.send_now()

    def quit(self) -> None:
        """End at once: running jobs are given back now."""
        self._quitting.set()
        self.drain()

    def _replaced(self) -> None:
        """Leave the id to the newer engine: with two of them, each attempt would run twice."""
        if self._engine_status.draining.is_set():
            return  # it leaves anyway; the newer one is its successor
        self._log.error(
            "another engine has connected with this engine_id: this one takes no more work and ends;"
            " give each engine its own --engine-id (DISTCONV_ENGINE_ID) and start it again"
        )
        self._is_replaced = True
        self.drain()

    async def _keep_link(self) -> None:
        await self._heartbeats.registered.wait()
        await self._link.run()

    async def _drain(self) -> None:
        await self._give_back_waiting()
        await self._wait_for_idle(self._config.drain_s, or_quit=True)
        self._engine_status.active_attempts.stop_all("released")
        await self._give_back_waiting()
        await self._wait_for_idle(DELIVER_S, or_quit=False)
        if not self._is_replaced:  # the daemon would take it for the newer engine's
            await self._heartbeats.deregister()
        if len(self._outbox):
            self._log.warning("reports are left for the next start", count=len(self._outbox))

    async def _wait_for_idle(self, seconds: float, *, or_quit: bool) -> None:
        """Wait until no job is held and every report is acknowledged, for at most `seconds`."""
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                if or_quit:
                    nursery.start_soon(_then_cancel, self._quitting.wait, nursery)
                nursery.start_soon(_then_cancel, self._idle.wait, nursery)

    async def _recover(self) -> None:
        """Clean up what a killed run left, and have it reported as lost."""
        for active in self._journal.unfinished():
            remove_partials(active)
            if (active.job_id, active.attempt) not in self._outbox:
                self._log.warning("attempt was lost", job_id=active.job_id, attempt=active.attempt)
                report = FailReport(
                    "The engine was killed while it held this job.",
                    active.attempt,
                    self._engine_status.engine_id,
                    FailureClass.LOST,
                )
                await self._outbox.put(active.job_id, active.attempt, "fail", report)
            self._journal.release(active.job_id, active.attempt)
        shutil.rmtree(self._attempts_dir, ignore_errors=True)
        self._attempts_dir.mkdir(parents=True)

    # ----------------------------------------------------------------------------------- polling

    async def _work(self, nursery: trio.Nursery, task_status: trio.TaskStatus[None]) -> None:
        """Prove what this engine can, register that, then ask for work until it drains."""
        with self._polling:
            await self._wait_for_disk_space()  # a full disk would prove that nothing can be encoded
            context = await self._open_context()
            self._heartbeats.send_now()
            await self._heartbeats.registered.wait()
            await self._report_benchmark()
            task_status.started()
            async with trio.open_nursery() as scheduler:
                again = partial(self._measure_again, context)
                scheduler.start_soon(
                    self._scheduler.run,
                    self._heartbeats.send_and_wait,
                    again,
                    self._report_benchmark,
                )
                await self._take_jobs(context, nursery)

    async def _take_jobs(self, context: EngineContext, nursery: trio.Nursery) -> None:
        """Ask for work whenever there is a slot, and begin it, for ever."""
        backoff = Backoff()
        while True:
            await self._slots.acquire()
            job = None
            try:
                job = await self._next_job(backoff)
            finally:
                if job is None:
                    self._slots.release()
            if job is not None:
                with trio.CancelScope(shield=True):  # a drain ends the measuring, not this job
                    await self._scheduler.wait_until_free()
                self._begin(context, job, nursery)

    async def _open_context(self) -> EngineContext:
        controls, engine_status = self._controls(), self._engine_status
        hardware = self._config.hardware == "prefer"
        capabilities = await verify_encoders(
            self._tools, controls, self._attempts_dir, hardware=hardware
        )
        benchmark = await measure(self._tools, capabilities, controls, self._cache)
        self._log.info("codecs proved", **benchmark.frames_per_second())
        engine_status.capabilities, engine_status.benchmark = capabilities, benchmark
        self.encoders_verified.set()
        return EngineContext(
            self._config,
            engine_status.engine_id,
            self._tools,
            capabilities,
            self._client,
            self._journal,
            self._log,
            engine_status.space_backoff,
        )

    def _controls(self, *, paused: bool = False) -> Controls:
        config = self._config
        limits = ChildLimits(config.niceness, config.memory_limit_mb, config.cpu_limit_s)
        return Controls(limits, config.stall_s, paused=paused)

    @property
    def _cache(self) -> Path:
        return self._config.work_dir / "benchmark.json"

    def _benchmark_asked(self, requested_at: int) -> None:
        if self._scheduler.ask(requested_at):
            self._heartbeats.send_now()

    async def _measure_again(self, context: EngineContext) -> Benchmark:
        return await measure(
            self._tools, context.capabilities, self._controls(), self._cache, force=True
        )

    async def _report_benchmark(self, requested_at: int | None = None) -> None:
        """Report the benchmark, for daemons that take it apart from heartbeats."""
        benchmark, backoff = self._engine_status.benchmark, Backoff()
        if benchmark is None or benchmark.overall_s is None:
            raise ConfigError(f"No encoder of {self._tools.ffmpeg} works; name another --ffmpeg.")
        report = BenchmarkReport(
            self._engine_status.engine_id, benchmark.overall_s, benchmark.seconds, requested_at
        )
        while True:
            try:
                await self._api.benchmark(report)
                return
            except DaemonUnavailable as error:
                self._log.debug("benchmark not delivered yet", reason=error)
            except Rejected as error:
                self._log.error("benchmark refused", reason=error)
            await trio.sleep(backoff.next_s())

    async def _next_job(self, backoff: Backoff) -> Job | None:
        """Ask once for work; returns None when there is none, after a wait where one is due."""
        await self._wait_for_disk_space()
        try:
            ask = partial(self._api.assign, self._engine_status.engine_id, self._config.poll_s)
            job = await self._link.next_job(ask)
        except (DaemonUnavailable, Rejected) as error:
            self._log.debug("no answer for work", reason=error)
            self._heartbeats.send_now()  # a daemon that forgot this engine learns of it again
            await trio.sleep(backoff.next_s())
            return None
        if job is None:
            backoff.reset()
            await trio.sleep(0 if self._config.poll_s >= POLL_PAUSE_S else POLL_PAUSE_S)
            return None
        attempt = (job.job_id, job.attempt)
        if attempt in self._engine_status.active_attempts or attempt in self._outbox:
            await trio.sleep(backoff.next_s())  # handed out again: its report is on its way
            return None
        backoff.reset()
        return job

    async def _wait_for_disk_space(self) -> None:
        """Take nothing while a disk is full; the heartbeats say so."""
        if self._engine_status.has_disk_space():
            return
        self._log.warning("disk is full: no job is taken until there is room")
        self._heartbeats.send_now()
        while not self._engine_status.has_disk_space():
            await self._give_back_waiting()
            await trio.sleep(self._config.heartbeat_s)
        self._log.info("there is room again")
        self._heartbeats.send_now()

    async def _give_back_waiting(self) -> None:
        """Release what was pushed and will not be begun."""
        for job in self._link.take_waiting():
            attempt = (job.job_id, job.attempt)
            if attempt in self._engine_status.active_attempts or attempt in self._outbox:
                continue  # pushed again after the daemon came back: it runs, or its report waits
            release = ReleaseReport(job.attempt, self._engine_status.engine_id, "Not begun.")
            await self._outbox.put(job.job_id, job.attempt, "release", release)

    # --------------------------------------------------------------------------------- one job

    def _begin(self, context: EngineContext, job: Job, nursery: trio.Nursery) -> None:
        folder = self._attempts_dir / token_of(job)
        active = ActiveAttempt(Attempt(job, folder, Tracker(), self._controls(paused=job.paused)))
        self._engine_status.active_attempts.add(active)
        self._jobs += 1
        self._idle = trio.Event()
        nursery.start_soon(self._one_job, JobTask(context, self._api, self._outbox, active))

    async def _one_job(self, task: JobTask) -> None:
        await task.run(self._engine_status.active_attempts)
        self._slots.release()
        self._jobs -= 1
        if not self._jobs:
            self._idle.set()
        self._scheduler.recheck()


async def _then_cancel(wait: Callable[[], Awaitable[None]], nursery: trio.Nursery) -> None:
    await wait()
    nursery.cancel_scope.cancel()
