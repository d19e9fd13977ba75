"""Run one job from its assignment to its acknowledged report, and keep its journal entry.

Error handling: a job's failure is a report. A bug is reported as an `engine` failure too, so that
it does not end the other jobs.
"""

import traceback

import msgspec
import trio

from distconv_engine.attempts.active import ActiveAttempt, ActiveAttempts
from distconv_engine.attempts.journal import JournalEntry, remove_partials
from distconv_engine.daemon_link.http import DaemonApi, DaemonUnavailable, Rejected
from distconv_engine.daemon_link.outbox import Outbox
from distconv_engine.failures import Incapable, InsufficientSpace, JobFailure
from distconv_engine.files import describe_fault, is_full
from distconv_engine.host.disk_space import is_shared_disk
from distconv_engine.host.metrics import free_bytes
from distconv_engine.pipeline.run import run_attempt
from distconv_engine.tasks import open_tasks
from distconvd.model import (
    FAILURES,
    CompleteReport,
    FailReport,
    FailureClass,
    ProgressReport,
    ReleaseReport,
    mask_urls,
)

PROGRESS_S = 1.0
"""The least time between two progress reports of a job."""


class JobTask:
    """Runs one job. Its slot is the caller's concern."""

    def __init__(self, api: DaemonApi, outbox: Outbox, active: ActiveAttempt) -> None:
        self._api = api
        self._outbox = outbox
        self._active = active
        self._job = active.job
        self._context = active.attempt.context
        self._log = active.attempt.log

    async def run(self, active_attempts: ActiveAttempts) -> None:
        """Work, report, and return once the report is acknowledged."""
        job = self._job
        try:
            self._log.info("job started", source=job.source_url, codec=job.target_codec)
            report = await self._attempt()
            if not isinstance(report, CompleteReport):
                # Useless files are removed first: on a full disk the report needs their space.
                await trio.to_thread.run_sync(remove_partials, self._journal_entry())
            await self._put_report(report)
            await trio.to_thread.run_sync(self._clean_up)
            # Active until then, so that heartbeats renew its lease and no other engine gets it.
            await self._outbox.wait_delivered(job.job_id, job.attempt)
        finally:
            active_attempts.remove(self._active)

    def _journal_entry(self) -> JournalEntry:
        return self._active.attempt.journal_entry()

    def _clean_up(self) -> None:
        remove_partials(self._journal_entry())
        self._context.journal.release(self._job.job_id, self._job.attempt)

    async def _attempt(self) -> CompleteReport | FailReport | None:
        """Run the pipeline and report its progress meanwhile; None if it was stopped."""
        report: CompleteReport | FailReport | None = None
        with self._active.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._report_progress)
                report = await self._run_to_report()
                nursery.cancel_scope.cancel()
        if report is None:
            self._log.info("job stopped", reason=self._active.stopped)
        elif isinstance(report, CompleteReport):
            seconds = self._active.attempt.tracker.spent_s()
            self._log.info("job completed", output=report.output_url, seconds=seconds)
        else:
            kind = report.error_class or FailureClass.ENGINE
            self._log.warning(
                "job failed",
                error_class=str(kind),
                at_fault=str(FAILURES[kind].at_fault),
                reason=report.error_message,
            )
        return report

    async def _run_to_report(self) -> CompleteReport | FailReport:
        """Run the pipeline and turn whatever it raises into a report."""
        space_backoff, free = self._context.space_backoff, free_bytes(self._context.config.work_dir)
        try:
            space_backoff.check(self._job)
            report = await self._record_and_run()
            space_backoff.relieve(self._job)
            return report
        except InsufficientSpace as failure:
            if failure.place is None or failure.needed is None:
                space_backoff.note_full(self._job, self._context.config.work_dir, free)
            else:
                is_shared = is_shared_disk(self._context.config, failure.place)
                space_backoff.note(self._job, failure.place, failure.needed, is_shared=is_shared)
            return self._failed(failure.message, failure.error_class, failure.log_tail)
        except Incapable as failure:
            failed = self._failed(failure.message, failure.error_class, failure.log_tail)
            return msgspec.structs.replace(failed, needs=[*failure.needs])
        except JobFailure as failure:
            return self._failed(failure.message, failure.error_class, failure.log_tail)
        except OSError as error:
            if is_full(error):
                space_backoff.note_full(self._job, self._context.config.work_dir, free)
            kind = FailureClass.TRANSIENT if is_full(error) else FailureClass.ENGINE
            return self._failed(
                f"The engine's operating system reported an error: {describe_fault(error)}", kind
            )
        except Exception as error:  # noqa: BLE001 - a bug must not end the other jobs
            trace = traceback.format_exc()
            self._log.error("bug in the engine", trace=trace)
            words = f"A bug in the engine: {type(error).__name__}: {error}"
            return self._failed(words, FailureClass.ENGINE, trace)

    async def _record_and_run(self) -> CompleteReport:
        """Run the pipeline; it reads the source while the journal's entry is written.

        Until the entry is durable there is nothing but the attempt's folder, which the next start
        empties, and the daemon's lease, which ends.
        """
        attempt = self._active.attempt
        attempt.folder.mkdir(parents=True, exist_ok=True)
        async with open_tasks() as tasks:
            tasks.start(attempt.record)
            return await run_attempt(attempt)

    def _failed(self, message: str, kind: FailureClass, log_tail: str | None = None) -> FailReport:
        shown = message.encode("utf-8", "backslashreplace").decode()  # a path need not be UTF-8
        log_tail = None if log_tail is None else mask_urls(log_tail)
        return FailReport(
            mask_urls(shown), self._job.attempt, self._context.engine_id, kind, log_tail
        )

    async def _put_report(self, report: CompleteReport | FailReport | None) -> None:
        """Make the report durable. A job that the daemon cancelled needs none."""
        job_id, attempt = self._job.job_id, self._job.attempt
        if isinstance(report, CompleteReport):
            await self._outbox.put(job_id, attempt, "complete", report)
        elif isinstance(report, FailReport):
            await self._outbox.put(job_id, attempt, "fail", report)
        elif self._active.stopped == "released":
            released = ReleaseReport(attempt, self._context.engine_id, "The engine is stopping.")
            await self._outbox.put(job_id, attempt, "release", released)

    async def _report_progress(self) -> None:
        """Report progress while it changes, and apply the answers."""
        sent_version, tracker = -1, self._active.attempt.tracker
        while True:
            if tracker.version != sent_version:
                sent_version = tracker.version
                await self._report_progress_once()
            await trio.sleep(PROGRESS_S)

    async def _report_progress_once(self) -> None:
        now = self._active.attempt.tracker.now
        report = ProgressReport(
            self._job.attempt,
            self._context.engine_id,
            now.fraction,
            now.fps,
            now.speed,
            now.eta_seconds,
            now.phase,
        )
        try:
            self._active.apply(await self._api.progress(self._job.job_id, report))
        except DaemonUnavailable:
            pass  # the next report says more
        except Rejected as error:
            if error.status in (404, 409):
                self._active.stop("cancelled")
