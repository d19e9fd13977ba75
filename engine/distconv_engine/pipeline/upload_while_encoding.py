"""Upload an output while it is encoded, and verify it at the same time.

ffmpeg writes into a named pipe. Its output is copied four ways: to the digest, to the two ffprobes
and the decoder that would otherwise read a file, and into the body of a PUT. The end of that body
is withheld until the output has been verified, so a server never gets a complete bad output: a
failure breaks the request off. Nothing is written to this engine's disk.

An upload cannot rewrite what it has sent: MP4 and MOV become fragmented, Matroska and WebM get no
index at their end. What would need more is not uploaded in this way: see `why_not_streamed`. Nor
can a broken upload be resumed, because no copy of what was sent exists: it fails as `transient`.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from distconv_engine.attempts.context import Attempt
from distconv_engine.checks.decode import decoder_of
from distconv_engine.checks.output import Evidence, Verified, probe_output
from distconv_engine.checks.registry import Check, Note
from distconv_engine.checks.source import CheckedSource
from distconv_engine.encode.command import Request
from distconv_engine.encode.plan import Plan
from distconv_engine.encode.run import Encoded
from distconv_engine.failures import JobFailure
from distconv_engine.ffmpeg.inputs import STDIN
from distconv_engine.pipeline.encoder_choice import run_encode
from distconv_engine.pipeline.output_tee import Tee
from distconv_engine.pipeline.outputs import Published
from distconv_engine.tasks import Tasks, open_tasks
from distconv_engine.transfer.destination import HttpTarget
from distconv_engine.transfer.streaming_put import is_read_back, put_body
from distconvd.model import TranscodeOptions

T = TypeVar("T")


def why_not_streamed(plan: Plan, options: TranscodeOptions) -> str | None:
    """Return why this output cannot be uploaded while it is encoded, or None if it can. Pure."""
    container, family = plan.container, plan.container.family
    if container.rules.faststart and options.faststart:
        return "options.faststart needs an index at the front, which is written last"
    if plan.keep_chapters:
        return "chapters are written last"
    for stream_out in plan.output_streams:
        if stream_out.edit is not None:
            return f"{stream_out.stream.label} needs an edit list, which needs an index"
        is_adts_copy = stream_out.action == "copy" and stream_out.stream.is_adts
        if is_adts_copy and not family.streams_adts:
            late = f"has its parameters too late for an {container.name} header"
            return f"{stream_out.stream.label} {late}"
        moved = stream_out.stream.is_cover or stream_out.stream.kind == "attachment"
        if moved or (stream_out.stream.kind == "subtitle" and not family.streams_subtitles):
            return f"{stream_out.stream.label} does not fit a streamed {container.name}"
    return None


class _Upload:
    """One PUT, whose body is what one encode writes into the tee."""

    def __init__(self, tee: Tee) -> None:
        self.tee = tee
        self.accepted = trio.Event()
        self.scope = trio.CancelScope()
        self.closed = trio.Event()
        self._step = trio.CancelScope()
        self._failures: list[JobFailure] = []

    def fail(self, failure: JobFailure) -> None:
        """End the step that runs now, or the next one, with the upload's failure."""
        self._failures.append(failure)
        self._step.cancel()

    async def during(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step of the attempt while the upload runs, and return the step's result."""
        if not self._failures:
            with trio.CancelScope() as self._step:
                return await step()
        raise self._failures[0]

    async def abort(self) -> None:
        """Break the request off, and wait until the named pipe is gone."""
        self.scope.cancel()
        await self.closed.wait()


@asynccontextmanager
async def open_upload(
    attempt: Attempt, source: CheckedSource, target: HttpTarget
) -> AsyncGenerator["UploadWhileEncoding"]:
    """Open the sink; whatever it still sends is broken off when the block is left."""
    async with open_tasks() as tasks:
        yield UploadWhileEncoding(attempt, source, target, tasks)
        tasks.cancel()


class UploadWhileEncoding:
    """A sink: the output is sent while ffmpeg writes it. Each encode has an upload of its own."""

    streaming = True

    def __init__(
        self, attempt: Attempt, source: CheckedSource, target: HttpTarget, tasks: Tasks
    ) -> None:
        self.path = attempt.folder / "output"
        self._attempt = attempt
        self._source = source
        self._target = target
        self._tasks = tasks

    async def prepare(self) -> None:
        """Nothing is stored, so there is nothing to prepare."""

    async def encode(self, request: Request) -> "UploadedOutput":
        """Encode, read and send concurrently; the end of the body is withheld."""
        upload: _Upload = await self._tasks.nursery.start(self._upload, request)
        try:
            encoded, evidence = await upload.during(
                partial(self._encode_and_read, upload.tee, request)
            )
        except JobFailure:
            await upload.abort()
            raise
        return UploadedOutput(self._attempt, self._target, request, encoded, evidence, upload)

    async def _upload(self, request: Request, *, task_status: trio.TaskStatus[_Upload]) -> None:
        """Send the body, and keep the tee open until the upload is aborted or the sink closed."""
        upload = _Upload(Tee(self.path))
        try:
            with upload.scope:
                task_status.started(upload)
                await self._put(upload, request)
                await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await upload.tee.aclose()
            upload.closed.set()

    async def _put(self, upload: _Upload, request: Request) -> None:
        try:
            await put_body(
                self._attempt.context.client_for(media_store=self._target.is_media_store),
                self._target,
                upload.tee.body(),
                key=self._attempt.config.api_key,
                content_type=request.plan.container.rules.mime,
            )
        except JobFailure as failure:
            upload.fail(failure)
        else:
            upload.accepted.set()

    async def _encode_and_read(self, tee: Tee, request: Request) -> tuple[Encoded, Evidence]:
        """Encode into the named pipe while the readers find what there is to know of the output."""
        # A reader may wait for as long as the encoder takes. One that hangs is noticed all the
        # same: it blocks the encode, which has a stall limit.
        readers = self._attempt.ffmpeg.using(request.tools).without_pause(stall_s=float("inf"))
        decoder, duration_s = decoder_of(request), self._source.duration_s
        async with open_tasks() as tasks:
            found = tasks.start(tee.connect(lambda end: probe_output(readers, STDIN, stdin=end)))
            scan = tasks.start(tee.connect(lambda end: readers.scan(STDIN, stdin=end)))
            decoded = tasks.start(
                tee.connect(
                    lambda end: readers.decode(STDIN, decoder, duration_s=duration_s, stdin=end)
                )
            )
            tasks.start(tee.run)
            encoded = await run_encode(self._attempt, self._source, request)
        evidence = Evidence(
            found.value, scan.value, decoded.value, tee.digest.hexdigest(), tee.size_bytes
        )
        return encoded, evidence


@dataclass(frozen=True, slots=True)
class UploadedOutput:
    """An output of which the server has all but the end of the request."""

    attempt: Attempt
    target: HttpTarget
    request: Request
    encoded: Encoded
    evidence: Evidence
    upload: _Upload

    async def read_evidence(self) -> Evidence:
        """Return what the readers found while it was encoded."""
        return self.evidence

    async def publish(self, verified: Verified) -> Published:
        """End the request, which completes the output at the server, and read it back."""
        self.upload.tee.finish_body()
        await self.upload.during(self.upload.accepted.wait)
        read_back = await is_read_back(
            self.attempt.context.client_for(media_store=self.target.is_media_store),
            self.target,
            key=self.attempt.config.api_key,
            sha256=verified.sha256,
            size_bytes=verified.size_bytes,
        )
        has_fragments = self.request.plan.container.family.index_flags is not None
        return Published(
            self.target.url,
            (Check.TARGET_READ_BACK,) if read_back else (),
            (Note.FRAGMENTED if has_fragments else Note.UNINDEXED,),
        )
