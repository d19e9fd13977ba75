"""The engine's life: register, prove what it can, ask for work, do it, report, drain.

Everything runs in one nursery: heartbeats, the outbox, one poller, and a task for each job. The
daemon being away never stops an encode: heartbeats and progress are tried again, and reports wait
in the outbox. A slot is free again once its report is acknowledged, since until then the daemon
would hand out the same job again.

Error handling: a job's failure is a report. A bug in a job's task is reported as an `engine`
failure too, so that it does not take the other jobs with it.
"""

import errno
import shutil
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import trio
from msgspec import UNSET

from distconv_engine import __version__
from distconv_engine.backoff import Backoff
from distconv_engine.benchmark import Benchmark, measure
from distconv_engine.capabilities import Capabilities, prove
from distconv_engine.config import Config
from distconv_engine.daemon_api import Away, DaemonApi, Refused
from distconv_engine.failures import JobFailure
from distconv_engine.ffmpeg_tools import Tools
from distconv_engine.gauges import cpu_percent, disk_gb, free_bytes, temperature_c
from distconv_engine.held import Held, Holdings
from distconv_engine.journal import Journal, remove_partials
from distconv_engine.logs import Log
from distconv_engine.outbox import Outbox
from distconv_engine.pipeline import MB, Attempt, Workshop, held_of, run_attempt
from distconv_engine.process import ChildLimits
from distconv_engine.running import Controls
from distconv_engine.tracker import Tracker
from distconvd.model import (
    BenchmarkReport,
    CompleteReport,
    FailReport,
    FailureClass,
    Heartbeat,
    Job,
    ProgressReport,
    ReleaseReport,
)

PROGRESS_S = 1.0
"""At most one progress report a job in this time."""
DELIVER_S = 5.0
"""How long a drained engine tries to deliver its last reports; they are on disk anyway."""
GOODBYE_S = 2.0
HOSTNAME_CHARS = 255


class Agent:
    """One engine. `run` returns when it has drained or was told to quit."""

    def __init__(
        self,
        config: Config,
        engine_id: str,
        tools: Tools,
        client: httpx.AsyncClient,
        hostname: str,
        log: Log,
    ) -> None:
        self._config = config
        self._engine_id = engine_id
        self._tools = tools
        self._client = client
        self._hostname = hostname
        self._log = log
        self._api = DaemonApi(client, config.server, config.api_key)
        self._outbox = Outbox(config.work_dir / "outbox", self._api, log)
        self._journal = Journal(config.work_dir / "held", log)
        self._holdings = Holdings()
        self._slots = trio.Semaphore(config.slots)
        self._capabilities: Capabilities | None = None
        self._benchmark: Benchmark | None = None
        self._registered = trio.Event()
        self._beat_now = trio.Event()
        self._polling = trio.CancelScope()
        self._draining = trio.Event()
        self._quitting = trio.Event()
        self._idle = trio.Event()
        self._idle.set()

    # ------------------------------------------------------------------------------------- life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until drained; `started` once the engine is registered and asks for work."""
        await self._recover()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._heartbeats)
            nursery.start_soon(self._outbox.run)
            nursery.start_soon(self._work, nursery, task_status)
            await self._draining.wait()
            await self._drain()
            nursery.cancel_scope.cancel()

    def drain(self) -> None:
        """Take nothing new; let running jobs go on for `drain_s`, then give them back."""
        self._log.info("draining", held=len(self._holdings), drain_s=self._config.drain_s)
        self._draining.set()
        self._polling.cancel()
        self._beat_now.set()

    def quit(self) -> None:
        """End at once: running jobs are given back now."""
        self._quitting.set()
        self._draining.set()
        self._polling.cancel()

    async def _drain(self) -> None:
        await self._wait_for_idle(self._config.drain_s, or_quit=True)
        self._holdings.stop_all("released")
        await self._wait_for_idle(DELIVER_S, or_quit=False)
        await self._say_goodbye()
        if len(self._outbox):
            self._log.warning("reports are left for the next start", count=len(self._outbox))

    async def _say_goodbye(self) -> None:
        """Tell the daemon that nothing is held and wanted any more; it would find out anyway."""
        with trio.move_on_after(GOODBYE_S):
            try:
                await self._api.heartbeat(self._heartbeat())
            except (Away, Refused) as error:
                self._log.debug("no goodbye", reason=error)

    async def _wait_for_idle(self, seconds: float, *, or_quit: bool) -> None:
        """Wait until no job is held and no report is open, for at most `seconds`."""
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                if or_quit:
                    nursery.start_soon(_then_cancel, self._quitting.wait, nursery)
                nursery.start_soon(_then_cancel, self._idle.wait, nursery)

    async def _recover(self) -> None:
        """Clean up what a killed run left, and have it reported as lost."""
        for held in self._journal.left_behind():
            remove_partials(held)
            if (held.job_id, held.attempt) not in self._outbox:
                self._log.warning("attempt was lost", job_id=held.job_id, attempt=held.attempt)
                report = FailReport(
                    "The engine was killed while it held this job.",
                    held.attempt,
                    self._engine_id,
                    FailureClass.LOST,
                )
                await self._outbox.put(held.job_id, held.attempt, "fail", report)
            self._journal.release(held.job_id, held.attempt)
        shutil.rmtree(self._attempts_dir, ignore_errors=True)
        self._attempts_dir.mkdir(parents=True)

    @property
    def _attempts_dir(self) -> Path:
        return self._config.work_dir / "attempts"

    # -------------------------------------------------------------------------------- heartbeats

    async def _heartbeats(self) -> None:
        backoff, was_away = Backoff(0.5, self._config.heartbeat_s), False
        while True:
            delay_s = self._config.heartbeat_s
            self._beat_now = trio.Event()
            try:
                reply = await self._api.heartbeat(self._heartbeat())
            except Away as error:
                if not was_away:
                    self._log.warning("daemon is away", reason=error)
                was_away, delay_s = True, backoff.next_s()
            except Refused as error:
                self._log.error("heartbeat refused", reason=error)
            else:
                if was_away or not self._registered.is_set():
                    self._log.info("registered with the daemon", state=reply.state)
                was_away = False
                backoff.reset()
                self._registered.set()
                self._holdings.obey(reply.jobs)
            with trio.move_on_after(delay_s):
                await self._beat_now.wait()

    def _heartbeat(self) -> Heartbeat:
        capacity_gb, free_gb = disk_gb(self._config.work_dir)
        capabilities, benchmark = self._capabilities, self._benchmark
        return Heartbeat(
            engine_id=self._engine_id,
            engine_type="transcoder",
            supported_codecs=UNSET if capabilities is None else capabilities.codecs,
            status=self._status(),
            storage_capacity_gb=capacity_gb,
            streaming_support=False,
            benchmark_time=UNSET if benchmark is None else benchmark.overall_s,
            benchmarks=UNSET if benchmark is None else benchmark.seconds,
            slots=self._config.slots,
            tags=self._config.tags,
            hostname=self._hostname,
            version=__version__,
            free_gb=free_gb,
            cpu_percent=cpu_percent(),
            temperature_c=temperature_c(),
            jobs=self._holdings.told(),
        )

    def _status(self) -> str:
        """Return the word that tells the scheduler: only `idle` wants work."""
        if self._draining.is_set():
            return "draining"
        if self._capabilities is None or self._benchmark is None:
            return "starting"
        return "idle" if self._has_room() else "disk-full"

    def _has_room(self) -> bool:
        return free_bytes(self._config.work_dir) >= self._config.disk_reserve_mb * MB

    # ----------------------------------------------------------------------------------- polling

    async def _work(self, nursery: trio.Nursery, task_status: trio.TaskStatus[None]) -> None:
        """Prove what this engine can, register that, then ask for work until it drains."""
        with self._polling:
            shop = await self._open_shop()
            self._beat_now.set()
            await self._registered.wait()
            await self._tell_benchmark()
            task_status.started()
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
                    self._begin(shop, job, nursery)

    async def _open_shop(self) -> Workshop:
        controls = Controls(self._limits(), self._config.stall_s)
        hardware = self._config.hardware == "prefer"
        capabilities = await prove(self._tools, controls, self._attempts_dir, hardware=hardware)
        self._capabilities = capabilities
        self._log.info("codecs proved", codecs=",".join(capabilities.codecs))
        cache = self._config.work_dir / "benchmark.json"
        self._benchmark = await measure(self._tools, capabilities, controls, cache)
        self._log.info("benchmark", **self._benchmark.frames_per_second())
        return Workshop(
            self._config,
            self._engine_id,
            self._tools,
            capabilities,
            self._client,
            self._journal,
            self._log,
        )

    def _limits(self) -> ChildLimits:
        config = self._config
        return ChildLimits(config.niceness, config.memory_limit_mb, config.cpu_limit_s)

    async def _tell_benchmark(self) -> None:
        benchmark, backoff = self._benchmark, Backoff()
        if benchmark is None or benchmark.overall_s is None:
            self._log.error("no encoder works: this engine will get no jobs")
            return
        report = BenchmarkReport(self._engine_id, benchmark.overall_s, benchmark.seconds)
        while True:
            try:
                await self._api.benchmark(report)
                return
            except Away:
                await trio.sleep(backoff.next_s())
            except Refused as error:
                self._log.error("benchmark refused", reason=error)
                await trio.sleep(backoff.next_s())
                if error.status not in (401, 403, 404):
                    return

    async def _next_job(self, backoff: Backoff) -> Job | None:
        """Ask once for work; returns None when there is none, after a wait where one is due."""
        if not self._has_room():
            self._log.warning("disk is full: no job is taken")
            await trio.sleep(self._config.heartbeat_s)
            return None
        try:
            job = await self._api.assign(self._engine_id, self._config.poll_s)
        except (Away, Refused) as error:
            self._log.debug("no answer for work", reason=error)
            self._beat_now.set()  # a daemon that forgot this engine learns of it again
            await trio.sleep(backoff.next_s())
            return None
        if job is None:
            if self._config.poll_s < 1:
                await trio.sleep(1)  # a daemon that does not wait is not to be hammered
            backoff.reset()
            return None
        if (job.job_id, job.attempt) in self._holdings or (
            job.job_id,
            job.attempt,
        ) in self._outbox:
            await trio.sleep(backoff.next_s())  # handed out again: its report is on its way
            return None
        backoff.reset()
        return job

    # ---------------------------------------------------------------------------------- one job

    def _begin(self, shop: Workshop, job: Job, nursery: trio.Nursery) -> None:
        held = Held(
            Attempt(
                job,
                self._attempts_dir / f"{len(self._holdings)}",
                Tracker(),
                Controls(self._limits(), self._config.stall_s, paused=job.paused),
            )
        )
        held.attempt.folder = self._attempts_dir / held.attempt.token
        self._holdings.add(held)
        self._idle = trio.Event()
        nursery.start_soon(self._one_job, shop, held)

    async def _one_job(self, shop: Workshop, held: Held) -> None:
        """Do one job and see its report delivered; then its slot is free."""
        job = held.job
        log = self._log.bind(job_id=job.job_id, attempt=job.attempt)
        try:
            await trio.to_thread.run_sync(self._take_up, held)
            log.info("job begun", source=job.source_url, codec=job.target_codec)
            report = await self._attempt(shop, held, log)
            await self._put_report(held, report)
            await trio.to_thread.run_sync(self._lay_down, held)
        finally:
            self._holdings.remove(held)
        await self._outbox.wait_delivered(job.job_id, job.attempt)
        self._slots.release()
        if not len(self._holdings):
            self._idle.set()

    def _take_up(self, held: Held) -> None:
        self._journal.hold(held_of(held.attempt))
        held.attempt.folder.mkdir(parents=True)

    def _lay_down(self, held: Held) -> None:
        remove_partials(held_of(held.attempt))
        self._journal.release(held.job.job_id, held.job.attempt)

    async def _attempt(
        self, shop: Workshop, held: Held, log: Log
    ) -> CompleteReport | FailReport | None:
        """Run the pipeline; returns its report, or None when it was stopped."""
        result: CompleteReport | FailReport | None = None
        with held.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell_progress, held)
                try:
                    result = await run_attempt(shop, held.attempt)
                except JobFailure as failure:
                    result = self._failed(held, failure.message, failure.error_class, log)
                    result = FailReport(
                        result.error_message,
                        result.attempt,
                        result.engine_id,
                        result.error_class,
                        failure.log_tail,
                    )
                except OSError as error:
                    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                    kind = FailureClass.TRANSIENT if full else FailureClass.ENGINE
                    result = self._failed(held, f"The engine's disk: {error}", kind, log)
                except Exception as error:  # noqa: BLE001 - a bug must not end the other jobs
                    log.error("bug in the engine", trace=traceback.format_exc())
                    words = f"A bug in the engine: {type(error).__name__}: {error}"
                    result = self._failed(held, words, FailureClass.ENGINE, log)
                nursery.cancel_scope.cancel()
        if result is None:
            log.info("job stopped", reason=held.stopped)
        elif isinstance(result, CompleteReport):
            log.info("job done", output=result.output_url)
        return result

    def _failed(self, held: Held, message: str, kind: FailureClass, log: Log) -> FailReport:
        log.warning("job failed", error_class=kind.value, reason=message)
        return FailReport(message, held.job.attempt, self._engine_id, kind)

    async def _put_report(self, held: Held, report: CompleteReport | FailReport | None) -> None:
        job_id, attempt = held.job.job_id, held.job.attempt
        if isinstance(report, CompleteReport):
            await self._outbox.put(job_id, attempt, "complete", report)
        elif isinstance(report, FailReport):
            await self._outbox.put(job_id, attempt, "fail", report)
        elif held.stopped == "released":
            released = ReleaseReport(attempt, self._engine_id, "The engine is stopping.")
            await self._outbox.put(job_id, attempt, "release", released)

    async def _tell_progress(self, held: Held) -> None:
        """Report progress while it changes, and obey the answers."""
        told, job = -1, held.job
        while True:
            tracker = held.attempt.tracker
            if tracker.version != told:
                told, now = tracker.version, tracker.now
                report = ProgressReport(
                    job.attempt,
                    self._engine_id,
                    now.fraction,
                    now.fps,
                    now.speed,
                    now.eta_seconds,
                    now.phase,
                )
                try:
                    held.obey(await self._api.progress(job.job_id, report))
                except Away:
                    pass  # the next one tells more
                except Refused as error:
                    if error.status in (404, 409):
                        held.stop("cancelled")
            await trio.sleep(PROGRESS_S)


async def _then_cancel(wait: Callable[[], Awaitable[None]], nursery: trio.Nursery) -> None:
    await wait()
    nursery.cancel_scope.cancel()
