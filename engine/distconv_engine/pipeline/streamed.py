"""Run a large job from a remote source to its target without storing either here.

The checks are those of a stored job. The source is read three times through `loopback_proxy`: raw
(zeroed blocks, digest), by ffprobe (every packet) and by the encode; one ETag or date covers all.

- To a directory, ffmpeg writes next to the final name, and the output is read back from there.
- To a URL, the output is uploaded while it is encoded, and is read back from the server.

A streaming upload cannot rewrite what it has sent: MP4 and MOV become fragmented, Matroska and WebM
get no index at their end. What would need more is fetched and stored instead: covers, chapters,
attachments, subtitles and edit lists in MP4, AAC copied from TS to Matroska, and an explicit
`faststart`. So is a source whose server offers no ranges, no size or no way to see a change, and
any AVI, WAV, WMV or MXF.
"""

import trio

from distconv_engine.attempts.context import Attempt, EngineContext, journal_entry_of
from distconv_engine.checks.output import Verified, verify
from distconv_engine.checks.source import Source, check_remote
from distconv_engine.config import Config
from distconv_engine.encode.encoders import Encoder
from distconv_engine.encode.plan import Plan, make_plan
from distconv_engine.host.disk_space import require_disk_space
from distconv_engine.pipeline.encoder_choice import (
    Work,
    encode_to,
    first_that_works,
    request_for,
    tools_for,
)
from distconv_engine.pipeline.report import result_of
from distconv_engine.pipeline.upload_while_encoding import encode_and_upload, read_back
from distconv_engine.transfer.destination import (
    FileTarget,
    HttpTarget,
    choose_target,
    is_media_store,
)
from distconv_engine.transfer.loopback_proxy import open_relay
from distconv_engine.transfer.publish import directory_faults, publish_file, temporary_of
from distconv_engine.transfer.range_reader import NotStreamable, RangeReader
from distconvd.model import CompleteReport, Job, TranscodeOptions


def is_large(config: Config, job: Job) -> bool:
    """Whether `job` is large enough to be streamed, and its source remote."""
    remote = job.source_url.lower().startswith(("http://", "https://"))
    return remote and 0 < config.stream_min_mb <= job.job_size


def why_not_streamed(plan: Plan, options: TranscodeOptions) -> str | None:
    """Return why this output cannot be uploaded while it is encoded, or None if it can. Pure."""
    mp4 = plan.container.name in ("mp4", "mov")
    if mp4 and options.faststart:
        return "options.faststart needs an index at the front, which is written last"
    if plan.keep_chapters:
        return "chapters are written last"
    for stream_out in plan.output_streams:
        if stream_out.edit is not None:
            return f"{stream_out.stream.label} needs an edit list, which needs an index"
        if (
            plan.container.name == "mkv"
            and stream_out.action == "copy"
            and stream_out.stream.is_adts
        ):
            return f"{stream_out.stream.label} has its parameters too late for an mkv header"
        moved = stream_out.stream.is_cover or stream_out.stream.kind == "attachment"
        if moved or (mp4 and stream_out.stream.kind == "subtitle"):
            return f"{stream_out.stream.label} does not fit a streamed {plan.container.name}"
    return None


async def run_streamed(
    context: EngineContext, attempt: Attempt, encoders: tuple[Encoder, ...]
) -> CompleteReport:
    """Run one attempt; raises `NotStreamable` when its source has to be fetched."""
    start, job, config = trio.current_time(), attempt.job, context.config
    require_disk_space(config, (config.work_dir, 0))
    key = config.api_key if is_media_store(job.source_url, config.server) else None
    reader = RangeReader(context.client, job.source_url, key=key, tries=config.fetch_tries)
    await reader.open()
    report: CompleteReport | None = None
    async with open_relay(reader) as relay:
        attempt.tracker.phase("probe")
        source = await check_remote(
            context.tools,
            reader,
            relay.url,
            attempt.controls,
            sha256=job.source_sha256,
            on_progress=attempt.tracker.part,
        )
        report = await _Streamed(context, attempt, reader, source, encoders, start).run()
    assert report is not None
    return report


class _Streamed:
    """One streamed attempt whose source has passed its checks."""

    def __init__(
        self,
        context: EngineContext,
        attempt: Attempt,
        reader: RangeReader,
        source: Source,
        encoders: tuple[Encoder, ...],
        start: float,
    ) -> None:
        self._context = context
        self._attempt = attempt
        self._reader = reader
        self._source = source
        self._encoders = encoders
        self._start = start

    async def run(self) -> CompleteReport:
        context, attempt, config = self._context, self._attempt, self._context.config
        plan = make_plan(attempt.job, self._source.probe, self._source.edits)
        target = choose_target(
            attempt.job,
            plan.container.suffix,
            output=config.output,
            server=config.server,
            roots=config.source_root,
        )
        if isinstance(target, HttpTarget) and (
            reason := why_not_streamed(plan, attempt.job.options)
        ):
            raise NotStreamable(reason)
        self._tools, encoders = await tools_for(context, attempt, plan, self._encoders)
        attempt.tracker.phase("encode")
        if isinstance(target, FileTarget):
            require_disk_space(config, (target.directory, self._source.state.size_bytes))
            return await self._to_directory(plan, target, encoders)
        return await self._to_url(plan, target, encoders)

    async def _to_directory(
        self, plan: Plan, target: FileTarget, encoders: tuple[Encoder, ...]
    ) -> CompleteReport:
        context, attempt, source = self._context, self._attempt, self._source
        temporary = temporary_of(target, attempt.token)
        await trio.to_thread.run_sync(context.journal.record, journal_entry_of(attempt, temporary))
        with directory_faults(target):
            await trio.Path(target.directory).mkdir(parents=True, exist_ok=True)

        async def work_with(encoder: Encoder) -> Work:
            request = request_for(
                context, attempt, source, plan, encoder, temporary, tools=self._tools
            )
            return await encode_to(request, attempt, source, temporary)

        work, fallbacks = await first_that_works(context, encoders, work_with)
        attempt.tracker.phase("verify")
        verified = await verify(
            work.request, source, work.encoded, temporary, attempt.controls, attempt.tracker.part
        )
        await self._reader.check_unchanged()
        attempt.tracker.phase("publish")
        url = await publish_file(temporary, verified.sha256, target, temporary, None)
        return self._report(url, work, verified, *fallbacks)

    async def _to_url(
        self, plan: Plan, target: HttpTarget, encoders: tuple[Encoder, ...]
    ) -> CompleteReport:
        context, attempt, source = self._context, self._attempt, self._source

        async def work_with(encoder: Encoder) -> tuple[Work, Verified]:
            fifo = attempt.folder / "output"
            request = request_for(
                context, attempt, source, plan, encoder, fifo, tools=self._tools, streaming=True
            )
            return await encode_and_upload(
                context, attempt, source, request, fifo, target, self._reader.check_unchanged
            )

        (work, verified), fallbacks = await first_that_works(context, encoders, work_with)
        attempt.tracker.phase("publish")
        key = context.config.api_key if target.is_media_store else None
        again = await read_back(context.client, target, key, verified)
        form = ["fragmented"] if plan.container.name in ("mp4", "mov") else ["unindexed"]
        return self._report(target.url, work, verified, *form, *again, *fallbacks)

    def _report(self, url: str, work: Work, verified: Verified, *checks: str) -> CompleteReport:
        self._attempt.tracker.phase("report")
        wall_s = trio.current_time() - self._start
        result = result_of(
            self._context, self._source, work, verified, wall_s, "source-unchanged", *checks
        )
        return CompleteReport(url, self._attempt.job.attempt, self._context.engine_id, result)
