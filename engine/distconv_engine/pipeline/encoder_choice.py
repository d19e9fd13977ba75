"""Choose an attempt's ffmpeg and encoder, and fall back to software when hardware fails."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from distconv_engine.attempts.context import Attempt
from distconv_engine.checks.registry import fallback_from
from distconv_engine.checks.source import CheckedSource
from distconv_engine.encode.command import Request
from distconv_engine.encode.encoders import Encoder
from distconv_engine.encode.plan import Plan
from distconv_engine.encode.run import Encoded, encode
from distconv_engine.failures import EngineFault
from distconv_engine.ffmpeg.containers import TRIAL_CONTAINER
from distconv_engine.ffmpeg.progress import EncodeProgress
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.host.capabilities import encodes
from distconvd.model import CODECS

T = TypeVar("T")
_TRIAL_STALL_S = 120.0


async def choose_tools(
    attempt: Attempt, plan: Plan, encoders: Sequence[Encoder]
) -> tuple[Tools, tuple[Encoder, ...]]:
    """Return an ffmpeg that decodes the source, and those of `encoders` that work with it.

    Not every build decodes AV1. If the usual one does not, the build that decodes AV1 outputs for
    verification does the whole job, with those of its software encoders that pass a trial encode.
    Hardware encoders are not tried here, so that their fallback is permitted and recorded as usual.

    Raises:
        EngineFault: no ffmpeg of this engine can; another engine may.
    """
    usual, readers = attempt.context.tools, attempt.context.capabilities.readers
    codec = plan.video.stream.codec if plan.video else None
    if codec not in CODECS:
        return usual, tuple(encoders)
    reader = readers.get(codec)
    if reader is None:
        raise EngineFault(f"This engine's ffmpeg cannot decode {codec} video.")
    if reader == usual.ffmpeg:
        return usual, tuple(encoders)
    tools = replace(usual, ffmpeg=reader)
    # Not pausable: a trial that a pause delays would look like a failure.
    ffmpeg = attempt.ffmpeg.using(tools).without_pause(stall_s=_TRIAL_STALL_S)
    clip = attempt.folder / f"proof{TRIAL_CONTAINER.suffix}"
    found = [row for row in encoders if row.hardware or await encodes(ffmpeg, row, clip)]
    if not found:
        raise EngineFault(
            f"The ffmpeg of this engine that decodes {codec} video has no {plan.codec} encoder."
        )
    return tools, tuple(found)


async def first_that_works(
    attempt: Attempt, encoders: Sequence[Encoder], work: Callable[[Encoder], Awaitable[T]]
) -> tuple[T, tuple[str, ...]]:
    """Do `work` with the first encoder that works; only hardware may fall back, where permitted.

    Returns its result, and a note on each fallback, for the job's record.
    """
    fallbacks: list[str] = []
    for encoder in encoders:
        try:
            return await work(encoder), tuple(fallbacks)
        except EngineFault as fault:
            if not (encoder.hardware and attempt.config.software_fallback):
                raise
            attempt.log.warning(
                "hardware encoder failed", encoder=encoder.name, reason=fault.message
            )
            fallbacks.append(fallback_from(encoder.name))
    raise EngineFault("Every encoder of this engine failed: " + ", ".join(fallbacks))


async def run_encode(attempt: Attempt, source: CheckedSource, request: Request) -> Encoded:
    """Run the encode of `request` in the attempt's folder, and track its progress."""
    duration_s = source.duration_s

    def report(progress: EncodeProgress, part: float) -> None:
        attempt.tracker.encoding(progress, part, duration_s)

    ffmpeg = attempt.ffmpeg.using(request.tools)
    return await encode(ffmpeg, request, report, cwd=attempt.folder, duration_s=duration_s)
