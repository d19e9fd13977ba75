"""Run one attempt through its stages: preflight, fetch, probe, encode, verify, publish.

Each stage is a module of its own and knows nothing of the others; this one only passes on what a
stage found. It returns the report of a success, or raises the `JobFailure` of the stage that
failed. Cancelling it at any point leaves no process and no partial file behind.

A large job with a remote source is run by `streamed` instead, which stores nothing here; it is
returned to this module if its source turns out to need fetching.
"""

from pathlib import Path
from urllib.parse import urlsplit

import trio

from distconv_engine.attempts.context import Attempt, EngineContext, journal_entry_of
from distconv_engine.checks.output import Verified, verify
from distconv_engine.checks.source import Source, check_source, check_unchanged
from distconv_engine.encode.encoders import Encoder
from distconv_engine.encode.plan import make_plan
from distconv_engine.host.disk_space import MB, require_disk_space, require_space_for_output
from distconv_engine.pipeline.decode_while_encoding import encode_and_decode
from distconv_engine.pipeline.encoder_choice import Work, first_that_works, request_for, tools_for
from distconv_engine.pipeline.preflight import preflight
from distconv_engine.pipeline.report import result_of
from distconv_engine.pipeline.streamed import is_large, run_streamed
from distconv_engine.transfer.destination import FileTarget, Target, choose_target, is_media_store
from distconv_engine.transfer.download import check_sha256, download, local_path
from distconv_engine.transfer.publish import (
    content_type_of,
    publish_file,
    publish_http,
    temporary_of,
)
from distconv_engine.transfer.range_reader import NotStreamable
from distconvd.model import CompleteReport


async def run_attempt(context: EngineContext, attempt: Attempt) -> CompleteReport:
    """Run one attempt; the caller creates its folder and removes it."""
    start = trio.current_time()
    attempt.tracker.phase("preflight")
    encoders = preflight(context, attempt.job)
    if is_large(context.config, attempt.job):
        try:
            return await run_streamed(context, attempt, encoders)
        except NotStreamable as reason:
            context.log.info("source is fetched instead of streamed", reason=reason)
    return await _run_stored(context, attempt, encoders, start)


async def _run_stored(
    context: EngineContext, attempt: Attempt, encoders: tuple[Encoder, ...], start: float
) -> CompleteReport:
    job, tracker, config = attempt.job, attempt.tracker, context.config
    path = await _fetch(context, attempt)
    tracker.phase("probe")
    source = await check_source(context.tools, path, attempt.controls)
    plan = make_plan(job, source.probe, source.edits)
    target = choose_target(
        job,
        plan.container.suffix,
        output=config.output,
        server=config.server,
        roots=config.source_root,
    )
    require_space_for_output(config, target, source.state.size_bytes)
    tools, encoders = await tools_for(context, attempt, plan, encoders)
    tracker.phase("encode")
    output = attempt.folder / f"output{plan.container.suffix}"

    async def work_with(encoder: Encoder) -> Work:
        request = request_for(context, attempt, source, plan, encoder, output, tools=tools)
        return await encode_and_decode(context, attempt, source, request, output)

    work, fallbacks = await first_that_works(context, encoders, work_with)
    tracker.phase("verify")
    verified = await verify(
        work.request,
        source,
        work.encoded,
        work.path,
        attempt.controls,
        tracker.part,
        concurrent_decode=work.decoded,
    )
    check_unchanged(source)
    tracker.phase("publish")
    url = await _publish(context, attempt, source, work, verified, target)
    tracker.phase("report")
    wall_s = trio.current_time() - start
    checks = ("source-unchanged", *fallbacks)
    result = result_of(context, source, work, verified, wall_s, *checks)
    return CompleteReport(url, job.attempt, context.engine_id, result)


async def _fetch(context: EngineContext, attempt: Attempt) -> Path:
    job, config = attempt.job, context.config
    if urlsplit(job.source_url).scheme == "file":
        path = local_path(job.source_url, config.source_root)
    else:
        # Space for source and output. The job's size may be wrong; the server's is checked later.
        require_disk_space(config, (config.work_dir, 2 * job.job_size * MB))
        attempt.tracker.phase("fetch")
        path = attempt.folder / "source"
        await download(
            context.client,
            job.source_url,
            path,
            tries=config.fetch_tries,
            key=config.api_key if is_media_store(job.source_url, config.server) else None,
            on_total=lambda total, here: require_disk_space(
                config, (config.work_dir, 2 * total - here)
            ),
            on_progress=attempt.tracker.part,
        )
    if job.source_sha256:
        await check_sha256(path, job.source_sha256)
    return path


async def _publish(
    context: EngineContext,
    attempt: Attempt,
    source: Source,
    work: Work,
    verified: Verified,
    target: Target,
) -> str:
    if isinstance(target, FileTarget):
        temporary = temporary_of(target, attempt.token)
        await trio.to_thread.run_sync(context.journal.record, journal_entry_of(attempt, temporary))
        return await publish_file(work.path, verified.sha256, target, temporary, source.path)
    return await publish_http(
        context.client,
        work.path,
        verified.sha256,
        target,
        key=context.config.api_key,
        content_type=content_type_of(work.request.plan.container.name),
        on_progress=attempt.tracker.part,
    )
