"""Run the engine: clean up, register, verify the encoders, work, drain.

Everything runs in one nursery: heartbeats, the outbox, one poller, and a task for each job. An
encode continues while the daemon is unavailable. A slot is free again once its job's report is
acknowledged, since until then the daemon would assign the same job again.
"""

import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
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
from distconv_engine.errors import EX_TEMPFAIL, ConfigError
from distconv_engine.ffmpeg.child import ChildLimits
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.host.benchmark import Benchmark, measure
from distconv_engine.host.capabilities import verify_encoders
from distconv_engine.job_task import JobTask
from distconv_engine.logs import Log
from distconv_engine.media.ffmpeg import Ffmpeg
from distconv_engine.self_test.outcome import FILE, Outcome
from distconv_engine.self_test.run import self_test
from distconv_engine.status import EngineStatus
from distconvd.model import (
    BenchmarkReport,
    FailReport,
    FailureClass,
    Job,
    ReleaseReport,
    describe_capability,
)

DELIVER_S = 5.0
"""How long a drained engine tries to deliver its last reports; they are on disk anyway."""
REPLACED_PAUSE_S = 45.0
"""The pause before an engine ends whose id another one has: its unit starts it again, but not so often
that systemd gives up (`StartLimitBurst` in `StartLimitIntervalSec`)."""
POLL_PAUSE_S = 1.0
"""The pause between two requests for work that do not wait at the daemon."""


class Agent:
    """One engine. `run` returns once it has drained or was asked to quit."""

    def __init__(
        self,
        engine_status: EngineStatus,
        tools: Tools,
        client: httpx.AsyncClient,
        guarded: httpx.AsyncClient,
        log: Log,
    ) -> None:
        """Make an engine.

        Args:
            engine_status: with the configuration.
            tools: the ffmpeg.
            client: for the daemon.
            guarded: for sources and outputs elsewhere, from `open_guarded_client`.
            log: for its events.
        """
        config = engine_status.config
        self.encoders_verified = trio.Event()
        """Set once the engine knows which codecs it can encode, and how fast."""
        self._engine_status = engine_status
        self._config = config
        self._tools = tools
        self._client = client
        self._guarded = guarded
        self._log = log
        self._api = DaemonApi(client, config.server, config.api_key)
        engine_id = self._engine_id = engine_status.engine_id
        open_link = partial(open_socket, config.server, engine_id, config.api_key)
        self._link = PushLink(
            open_link, engine_status.active_attempts, log, self._request_benchmark, self._replaced
        )
        self._scheduler = BenchmarkScheduler(engine_status, log)
        engine_status.on_benchmark_request = self._request_benchmark
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
        self._leaving = trio.Event()
        self._is_replaced = False

    # ------------------------------------------------------------------------------------- life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until drained; calls `started` once the engine is registered and asks for work.

        Raises `ConfigError` if it drained because another engine has its id; the service manager may
        try again then, since that one may go.
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
            with trio.move_on_after(REPLACED_PAUSE_S):
                await self._leaving.wait()
            raise ConfigError(
                f"Another engine is connected with the engine_id {self._engine_id!r}.",
                exit_code=EX_TEMPFAIL,
            )

    def drain(self) -> None:
        """Accept nothing new; let running jobs continue for `drain_s`, then release them."""
        self._leaving.set()
        self._drain_now()

    def _drain_now(self) -> None:
        self._log.info("draining", jobs=self._jobs, drain_s=self._config.drain_s)
        self._engine_status.draining.set()
        self._polling.cancel()
        self._heartbeats.send_now()

    def quit(self) -> None:
        """End immediately: running jobs are released now."""
        self._quitting.set()
        self.drain()

    def _replaced(self) -> None:
        """Leave the id to the other engine: with two of them, each attempt would run twice."""
        if self._engine_status.draining.is_set():
            return  # it is leaving anyway; the other one is its successor
        self._log.error(
            "another engine is connected with this engine_id: this one takes no more work and"
            " exits; give each engine its own --engine-id (DISTCONV_ENGINE_ID) and start it again"
        )
        self._is_replaced = True
        self._drain_now()

    async def _keep_link(self) -> None:
        await self._heartbeats.registered.wait()
        await self._link.run()

    async def _drain(self) -> None:
        await self._release_waiting()
        await self._wait_for_idle(self._config.drain_s, or_quit=True)
        self._engine_status.active_attempts.stop_all("released")
        await self._release_waiting()
        await self._wait_for_idle(DELIVER_S, or_quit=False)
        if not self._is_replaced:  # else the daemon would attribute it to the newer engine
            await self._heartbeats.deregister()
        if len(self._outbox):
            self._log.warning(
                "undelivered reports are kept for the next start", count=len(self._outbox)
            )

    async def _wait_for_idle(self, seconds: float, *, or_quit: bool) -> None:
        """Wait until no attempt is active and every report is acknowledged, at most `seconds`."""
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                if or_quit:
                    nursery.start_soon(_then_cancel, self._quitting.wait, nursery)
                nursery.start_soon(_then_cancel, self._idle.wait, nursery)

    async def _recover(self) -> None:
        """Clean up after a run that was killed, and report its attempts as lost."""
        for active in self._journal.unfinished():
            remove_partials(active)
            if (active.job_id, active.attempt) not in self._outbox:
                self._log.warning("attempt was lost", job_id=active.job_id, attempt=active.attempt)
                report = FailReport(
                    "The engine was killed while it worked on this job.",
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
        """Verify the encoders, register them, then ask for work until the engine drains."""
        with self._polling:
            await self._wait_for_disk_space()  # on a full disk every encoder would fail
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
        """Ask for work whenever there is a free slot, and start it; never returns."""
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
                with trio.CancelScope(shield=True):  # a drain cancels the benchmark, not this job
                    await self._scheduler.wait_until_free()
                self._begin(context, job, nursery)

    async def _open_context(self) -> EngineContext:
        engine_status = self._engine_status
        ffmpeg = Ffmpeg(self._tools, self._controls())
        hardware = self._config.hardware == "prefer"
        capabilities = await verify_encoders(ffmpeg, self._attempts_dir, hardware=hardware)
        benchmark = await measure(ffmpeg, capabilities, self._cache)
        self._log.info("encoders verified", **benchmark.frames_per_second())
        context = EngineContext(
            self._config,
            engine_status.engine_id,
            self._tools,
            capabilities,
            self._guarded,
            self._journal,
            self._log,
            engine_status.space_backoff,
            self._client,
        )
        outcome = await self._test_itself(context)
        engine_status.self_test = outcome
        engine_status.capabilities, engine_status.benchmark = capabilities, benchmark
        self.encoders_verified.set()
        return replace(context, lacking=frozenset(outcome.failed))

    async def _test_itself(self, context: EngineContext) -> Outcome:
        """Convert a clip of each kind; log what this engine cannot convert."""
        if not context.capabilities.codecs:
            return Outcome("")  # it will exit, and say why
        folder = self._attempts_dir / "self-test"
        outcome = await self_test(context, folder, self._config.work_dir / FILE)
        for capability, reason in outcome.failed.items():
            kind = describe_capability(capability)
            self._log.warning("self-test failed: such jobs go to others", kind=kind, reason=reason)
        return outcome

    def _controls(self, *, paused: bool = False) -> Controls:
        config = self._config
        limits = ChildLimits(config.niceness, config.memory_limit_mb, config.cpu_limit_s)
        return Controls(limits, config.stall_s, paused=paused)

    @property
    def _cache(self) -> Path:
        return self._config.work_dir / "benchmark.json"

    def _request_benchmark(self, requested_at: int) -> None:
        if self._scheduler.request(requested_at):
            self._heartbeats.send_now()

    async def _measure_again(self, context: EngineContext) -> Benchmark:
        ffmpeg = Ffmpeg(self._tools, self._controls())
        return await measure(ffmpeg, context.capabilities, self._cache, force=True)

    async def _report_benchmark(self, requested_at: int | None = None) -> None:
        """Report the benchmark separately, for daemons that do not read it from heartbeats."""
        benchmark, backoff = self._engine_status.benchmark, Backoff()
        if benchmark is None or benchmark.overall_s is None:
            raise ConfigError(f"No encoder of {self._tools.ffmpeg} works. Choose another --ffmpeg.")
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
                self._log.error("benchmark rejected", reason=error)
            await trio.sleep(backoff.next_s())

    async def _next_job(self, backoff: Backoff) -> Job | None:
        """Ask for work once; returns None if there is none, after a wait where one is due."""
        await self._wait_for_disk_space()
        try:
            ask = partial(self._api.assign, self._engine_status.engine_id, self._config.poll_s)
            job = await self._link.next_job(ask)
        except (DaemonUnavailable, Rejected) as error:
            self._log.debug("request for work failed", reason=error)
            self._heartbeats.send_now()  # registers again at a daemon that forgot this engine
            await trio.sleep(backoff.next_s())
            return None
        if job is None:
            backoff.reset()
            await trio.sleep(0 if self._config.poll_s >= POLL_PAUSE_S else POLL_PAUSE_S)
            return None
        attempt = (job.job_id, job.attempt)
        if attempt in self._engine_status.active_attempts or attempt in self._outbox:
            await trio.sleep(backoff.next_s())  # assigned again: its report is on its way
            return None
        backoff.reset()
        return job

    async def _wait_for_disk_space(self) -> None:
        """Take no job while a disk is full; the heartbeats report it."""
        if self._engine_status.has_disk_space():
            return
        self._log.warning("disk is full: no job is taken until space is free")
        self._heartbeats.send_now()
        while not self._engine_status.has_disk_space():
            await self._release_waiting()
            await trio.sleep(self._config.heartbeat_s)
        self._log.info("disk space is free again")
        self._heartbeats.send_now()

    async def _release_waiting(self) -> None:
        """Release the jobs that were pushed and will not start."""
        for job in self._link.take_waiting():
            attempt = (job.job_id, job.attempt)
            if attempt in self._engine_status.active_attempts or attempt in self._outbox:
                continue  # pushed again by a restarted daemon: it runs, or its report waits
            release = ReleaseReport(
                job.attempt, self._engine_status.engine_id, "The engine did not start it."
            )
            await self._outbox.put(job.job_id, job.attempt, "release", release)

    # --------------------------------------------------------------------------------- one job

    def _begin(self, context: EngineContext, job: Job, nursery: trio.Nursery) -> None:
        folder = self._attempts_dir / token_of(job)
        active = ActiveAttempt(
            Attempt(context, job, folder, Tracker(), self._controls(paused=job.paused))
        )
        self._engine_status.active_attempts.add(active)
        self._jobs += 1
        self._idle = trio.Event()
        nursery.start_soon(self._one_job, JobTask(self._api, self._outbox, active))

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
