"""Choose an attempt's ffmpeg and encoder, and fall back to software when hardware fails."""

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
    """A finished encode, and how it was made."""

    request: Request
    encoded: Encoded
    path: Path
    decoded: Decoded | None = None
    """The result of a concurrent decode, if there is a valid one."""


async def tools_for(
    context: EngineContext, attempt: Attempt, plan: Plan, encoders: Sequence[Encoder]
) -> tuple[Tools, tuple[Encoder, ...]]:
    """Return an ffmpeg that decodes the source, and those of `encoders` that work with it.

    Not every build decodes AV1. If the usual one does not, the build that decodes AV1 outputs for
    verification does the whole job, with those of its software encoders that pass a trial encode.
    Hardware encoders are not tried here, so that their fallback is permitted and recorded as usual.

    Raises:
        EngineFault: no ffmpeg of this engine can; another engine may.
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
    controls = Controls(attempt.controls.limits)  # not pausable: a pause would look like a failure
    clip = attempt.folder / "proof.mkv"
    found = [row for row in encoders if row.hardware or await encodes(tools, controls, row, clip)]
    if not found:
        raise EngineFault(
            f"The ffmpeg of this engine that decodes {codec} video has no {plan.codec} encoder."
        )
    return tools, tuple(found)


async def first_that_works(
    context: EngineContext, encoders: Sequence[Encoder], work: Callable[[Encoder], Awaitable[T]]
) -> tuple[T, tuple[str, ...]]:
    """Do `work` with the first encoder that works; only hardware may fall back, where permitted.

    Returns its result, and the name of a check for each fallback, for the job's record.
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
    """Return the request for an encode; see `Request` for what `streaming` does.

    Raises a `JobFailure` if this encoder cannot do it, before anything has started.
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
