"""Send a clip of one second to a real engine, and check the result that comes back.

The job is cancelled on timeout and on Ctrl-C. Its record stays, with the label `distconv=doctor`,
since the daemon keeps the records of all jobs.
"""

import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from distconv_client.api import Client
from distconv_client.display import text
from distconv_client.doctor.clip import FRAMES, make_clip
from distconv_client.doctor.finding import Finding, fail, ok
from distconv_client.doctor.transport import Transport, by_folder, by_http
from distconv_client.errors import ClientError, Conflict
from distconv_client.views import EngineView
from distconvd.model import TERMINAL_STATUSES, Job, JobStatus, Output, Submission

NAME = "round trip"
POLL_S = 0.25
PRIORITY_URGENT = 2
_FOLDER = (
    "name a folder that this machine and the engines see under the same path, within their "
    "--source-root: --clip-dir DIR"
)


class RoundTrip:
    """One job, from its submission to its result.

    Args:
        client: the daemon.
        engines: the available engines.
        address: this machine's address, from which engines fetch the clip.
        clip_dir: a folder shared with the engines, used instead.
        timeout_s: how long the job may take.
        sleep: waits for a number of seconds.
        ticker: monotonic seconds.
    """

    def __init__(
        self,
        client: Client,
        engines: list[EngineView],
        address: str,
        *,
        clip_dir: Path | None = None,
        timeout_s: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
        ticker: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._codec = _codec_of(engines)
        self._address = address
        self._clip_dir = clip_dir
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._ticker = ticker

    def check(self) -> Finding:
        """Run the job; raises `ClientError` when the daemon refuses, `BadInput` for an unusable
        folder."""
        clip = make_clip()
        began_s = self._ticker()
        with self._transport(clip) as transport:
            job = self._client.submit(self._submission(transport, len(clip)))
            try:
                job = self._wait(job, began_s + self._timeout_s)
                return self._finding(job, transport, self._ticker() - began_s)
            finally:
                self._clean_up(job)

    def _transport(self, clip: bytes) -> AbstractContextManager[Transport]:
        if self._clip_dir is not None:
            return by_folder(self._clip_dir, clip)
        return by_http(self._address, clip)

    def _submission(self, transport: Transport, size_bytes: int) -> Submission:
        return Submission(
            transport.source_url,
            self._codec,
            size_bytes / 1e6,
            max_retries=0,
            priority=PRIORITY_URGENT,
            labels={"distconv": "doctor"},
            output=Output(url=transport.output_url),
        )

    def _wait(self, job: Job, deadline_s: float) -> Job:
        """Return the job when it has ended, an attempt has failed, or the time is up."""
        while True:
            job = self._client.job(job.job_id)
            failed = job.status is JobStatus.PENDING and job.error_message is not None
            if job.status in TERMINAL_STATUSES or failed or self._ticker() >= deadline_s:
                return job
            self._sleep(POLL_S)

    def _finding(self, job: Job, transport: Transport, took_s: float) -> Finding:
        if job.status is JobStatus.COMPLETED:
            return self._compared(job, transport.result(), took_s)
        if job.error_message is not None:
            return self._failed(job)
        if job.status is JobStatus.PENDING:
            why = self._client.why(job.job_id).summary
            detail = f"the job is still pending after {took_s:.0f} s: {why}"
            remedy = "Remove that cause, or allow more time: --timeout SECONDS"
            return fail(NAME, text.clean(detail), remedy)
        so_far = "" if job.progress is None else f" ({text.progress(job)})"
        detail = f"the job has not ended on {job.assigned_engine} after {took_s:.0f} s{so_far}"
        return fail(NAME, text.clean(detail), "The engine is slow or stuck: see its log.")

    def _failed(self, job: Job) -> Finding:
        """Return a failure; usually the engine could not fetch the clip or upload the result."""
        detail = f"the job failed: {job.error_message}"
        remedy = f"See `distconv attempts --log {job.job_id}`"
        if self._clip_dir is None:
            remedy += f"; if the engine cannot reach this machine ({self._address}), {_FOLDER}"
        else:
            remedy += "; the folder must be within the engine's --source-root, and writable"
        return fail(NAME, text.clean(detail), f"{remedy}.")

    def _compared(self, job: Job, data: bytes | None, took_s: float) -> Finding:
        """Compare the result with what the engine reported."""
        result, engine = job.result, text.clean(job.assigned_engine or "an engine")
        remedy = f"Something alters files in transit; see `distconv status {job.job_id}`."
        if data is None:
            detail = f"{engine} reported success, but the result is missing"
            return fail(NAME, detail, remedy)
        if result is None or result.sha256 != hashlib.sha256(data).hexdigest():
            return fail(NAME, f"the result differs from what {engine} reported", remedy)
        if result.video_frames != FRAMES:
            detail = f"{result.video_frames} of {FRAMES} frames came back"
            return fail(NAME, detail, "Please report this, with the engine's log.")
        detail = f"{engine} encoded {FRAMES} frames to {self._codec} in {took_s:.1f} s, and all came back"
        return ok(NAME, detail)

    def _clean_up(self, job: Job) -> None:
        if job.status not in TERMINAL_STATUSES:
            try:
                self._client.cancel(job.job_id)
            except (Conflict, ClientError):
                pass  # it has ended meanwhile, or the daemon is unavailable


def _codec_of(engines: list[EngineView]) -> str:
    """Return a codec that one of the engines supports, h264 if possible."""
    made = [codec for engine in engines for codec in engine.supported_codecs or ["h264"]]
    return "h264" if "h264" in made or not made else made[0]
