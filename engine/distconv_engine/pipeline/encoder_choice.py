"""One attempt's encode: which ffmpeg, which encoder, and what to do when a hardware one fails."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from distconv_engine.attempts.context import Attempt, EngineContext
from distconv_engine.attempts.progress_tracker import Tracker
from distconv_engine.checks.decode import Decoded
from distconv_engine.checks.source import Source
from distconv_engine.encode.command import Request, check_request
from distconv_engine.encode.encoders import Encoder
from distconv_engine.encode.plan import Plan
from distconv_engine.encode.run import Encoded, encode
from distconv_engine.failures import EngineFault
from distconv_engine.ffmpeg.inputs import file_url
from distconv_engine.ffmpeg.progress import EncodeProgress
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.host.capabilities import encodes
from distconvd.model import CODECS

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Work:
    """An encode that is done, and how."""

    request: Request
    encoded: Encoded
    path: Path
    decoded: Decoded | None = None
    """What was decoded of it meanwhile; None: nothing that counts."""


async def tools_for(
    context: EngineContext, attempt: Attempt, plan: Plan, encoders: Sequence[Encoder]
) -> tuple[Tools, tuple[Encoder, ...]]:
    """Return an ffmpeg that decodes the source, and those of `encoders` that it may have.

    Not every build decodes AV1. Where the usual one does not, the one that reads AV1 back for the
    verification does the whole job, with the software encoders that it proves to have. Hardware
    ones are left to be tried, so that giving way is allowed and recorded like any other.

    Raises:
        EngineFault: none here can; another engine may.
    """
    codec = plan.video.stream.codec if plan.video else None
    if codec not in CODECS:
        return context.tools, tuple(encoders)
    reader = context.capabilities.readers.get(codec)
    if reader is None:
        raise EngineFault(f"This engine's ffmpeg cannot decode {codec} video.")
    if reader == context.tools.ffmpeg:
        return context.tools, tuple(encoders)
    tools = replace(context.tools, ffmpeg=reader)
    controls = Controls(attempt.controls.limits)  # a pause meanwhile would prove nothing
    clip = attempt.folder / "proof.mkv"
    found = [row for row in encoders if row.hardware or await encodes(tools, controls, row, clip)]
    if not found:
        raise EngineFault(
            f"This engine's ffmpeg that decodes {codec} video has no encoder for {plan.codec}."
        )
    return tools, tuple(found)


async def first_that_works(
    context: EngineContext, encoders: Sequence[Encoder], work: Callable[[Encoder], Awaitable[T]]
) -> tuple[T, tuple[str, ...]]:
    """Do `work` with the first encoder that can; a hardware one may give way, where allowed.

    Returns its result, and a word for each encoder that gave way, for the job's record.
    """
    fallbacks: list[str] = []
    for encoder in encoders:
        try:
            return await work(encoder), tuple(fallbacks)
        except EngineFault as fault:
            if not (encoder.hardware and context.config.software_fallback):
                raise
            context.log.warning(
                "hardware encoder failed", encoder=encoder.name, reason=fault.message
            )
            fallbacks.append(f"fallback-from-{encoder.name}")
    raise EngineFault("Every encoder of this engine failed: " + ", ".join(fallbacks))


def request_for(
    context: EngineContext,
    attempt: Attempt,
    source: Source,
    plan: Plan,
    encoder: Encoder,
    path: Path,
    *,
    tools: Tools,
    streaming: bool = False,
) -> Request:
    """Return what to run; see `Request` for what `streaming` does.

    Raises the `JobFailure` of what this encoder cannot do, before anything is begun.
    """
    request = Request(
        tools,
        source.url,
        plan,
        attempt.job.options,
        encoder,
        file_url(path),
        reader=context.capabilities.readers.get(plan.codec),
        streaming=streaming,
    )
    check_request(request)
    return request


async def encode_to(request: Request, attempt: Attempt, source: Source, path: Path) -> Work:
    """Run the encode of `request`, whose output is `path`."""
    encoded = await encode(
        request,
        attempt.controls,
        _progress_reporter(attempt.tracker, source.duration_s),
        cwd=attempt.folder,
        duration_s=source.duration_s,
    )
    return Work(request, encoded, path)


def _progress_reporter(
    tracker: Tracker, duration_s: float
) -> Callable[[EncodeProgress, float], None]:
    def report(progress: EncodeProgress, part: float) -> None:
        tracker.encoding(progress, part, duration_s)

    return report
