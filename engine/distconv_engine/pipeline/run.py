"""Run one attempt: preflight, source, plan, encode, verify, publish, report.

This is the only place where that sequence stands. What differs between attempts are the *source* (a
local file, or a remote one behind a proxy) and the *sink* (a stored file, a directory, or a PUT
while it is encoded); each combination goes through the same steps and the same proof. A stage
knows nothing of the others. It returns what it found, or raises the `JobFailure` that is reported.
Cancelling an attempt at any point leaves no process and no partial file behind.

A large job with a remote source is streamed: neither source nor output is stored here. If it turns
out that this source or output cannot be streamed, the attempt begins again with a stored source.

Where later stages go:

- A chunk of a film is another plan and another sink. `make_plan` decides what of the source is
  encoded, `open_sink` where it goes; the steps between stay as they are.
- Steps of plugins go where a comment says "Seam": before the encode, extra outputs, after the
  proof, on publish.
"""

from collections.abc import Sequence
from dataclasses import replace

import trio

from distconv_engine.attempts.context import Attempt
from distconv_engine.checks.output import check_output
from distconv_engine.checks.source import CheckedSource
from distconv_engine.encode.command import Request, check_request
from distconv_engine.encode.plan import Plan, make_plan
from distconv_engine.ffmpeg.inputs import file_url
from distconv_engine.host.capabilities import VerifiedEncoder
from distconv_engine.media.packets import Edit
from distconv_engine.pipeline.encoder_choice import (
    encoders_that_keep,
    first_that_works,
    require_decoder,
)
from distconv_engine.pipeline.outputs import Output
from distconv_engine.pipeline.preflight import preflight
from distconv_engine.pipeline.report import Finished, report_of
from distconv_engine.pipeline.sinks import Sink, open_sink
from distconv_engine.pipeline.sources import Source, is_large, open_local, open_proxied
from distconv_engine.transfer.range_reader import NotStreamable
from distconvd.model import CompleteReport


async def run_attempt(attempt: Attempt) -> CompleteReport:
    """Run one attempt; the caller creates its folder and removes it."""
    return await Pipeline(attempt).run()


class Pipeline:
    """One attempt on its way from its source to its report."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    async def run(self) -> CompleteReport:
        """Run the sequence; a second time if what was to be streamed has to be stored."""
        start = trio.current_time()
        self._enter("preflight")
        encoders = preflight(self._attempt)
        finished = await self._stream_or_store(encoders)
        self._enter("report")
        return report_of(self._attempt, finished, wall_s=trio.current_time() - start)

    async def _stream_or_store(self, encoders: Sequence[VerifiedEncoder]) -> Finished:
        """Open the source, by proxy if the job is large, and go on from there."""
        if is_large(self._attempt):
            try:
                async with open_proxied(self._attempt) as source:
                    return await self._run_from(source, encoders)
            except NotStreamable as reason:
                self._attempt.log.info("source is fetched instead of streamed", reason=reason)
        return await self._run_from(await open_local(self._attempt), encoders)

    async def _run_from(self, source: Source, encoders: Sequence[VerifiedEncoder]) -> Finished:
        """Check the source, plan, encode, verify and publish."""
        self._enter("probe")
        checked = await source.check()
        found = await self._attempt.ffmpeg.add_frame_data(checked.probe, checked.url)
        checked = replace(checked, probe=found)
        # In a thread, as a long film has a million frames; so is the check of the output.
        plan = await trio.to_thread.run_sync(
            make_plan, self._attempt.job, checked.probe, self._edits(checked), checked.timeline
        )
        async with open_sink(self._attempt, checked, plan) as sink:
            output, fallbacks = await self._encode(checked, plan, sink, encoders)
            # Seam: extra outputs of the same source.
            self._enter("verify")
            evidence = await output.read_evidence()
            verified = await trio.to_thread.run_sync(
                check_output, output.request, checked, output.encoded, evidence
            )
            await source.check_unchanged(checked)
            # Seam: steps after the proof.
            self._enter("publish")
            # Seam: steps on publish.
            published = await output.publish(verified)
        tools = self._attempt.context.tools
        return Finished(checked, output, verified, published, tools, fallbacks)

    async def _encode(
        self, source: CheckedSource, plan: Plan, sink: Sink, encoders: Sequence[VerifiedEncoder]
    ) -> tuple[Output, tuple[str, ...]]:
        """Encode with the first encoder that works; returns a check's name for each that failed."""
        attempt = self._attempt

        async def encode_with(row: VerifiedEncoder) -> Output:
            require_decoder(attempt, plan, row)
            request = Request(
                row.tools,
                source.url,
                plan,
                attempt.job.options,
                row.encoder,
                file_url(sink.path),
                reader=attempt.context.capabilities.reader(plan.codec),
                streaming=sink.streaming,
                is_damaged=bool(source.damage),
            )
            check_request(request)
            return await sink.encode(request)

        await sink.prepare()
        # Seam: steps before the encode.
        self._enter("encode")
        return await first_that_works(attempt, encoders_that_keep(plan, encoders), encode_with)

    def _edits(self, source: CheckedSource) -> dict[int, Edit]:
        """Return where audio must not be copied as it is: damaged audio is decoded, unless asked."""
        if not source.damage or self._attempt.job.options.audio_codec == "copy":
            return source.edits
        return {stream.index: "inside" for stream in source.probe.of_kind("audio")}

    def _enter(self, phase: str) -> None:
        self._attempt.tracker.phase(phase)
