"""Choose an attempt's encoder with its ffmpeg, and fall back where one fails."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from distconv_engine.attempts.context import Attempt
from distconv_engine.checks.decode import confirm_source
from distconv_engine.checks.registry import fallback_from
from distconv_engine.checks.source import CheckedSource
from distconv_engine.encode.command import Request, is_ten_bit
from distconv_engine.encode.plan import Plan
from distconv_engine.encode.run import Encoded, encode
from distconv_engine.failures import EngineFault, FfmpegFailed, Lacking
from distconv_engine.ffmpeg.progress import EncodeProgress
from distconv_engine.ffmpeg.tools import keeps_hdr_data
from distconv_engine.host.capabilities import VerifiedEncoder
from distconv_engine.media.probe import HDR_SIDE_DATA
from distconvd.model import CODECS

T = TypeVar("T")
_SOUND_SHARE_MIN = 0.9
_SOUND_SLACK_S = 0.5
_OTHER_RATES = frozenset({"aac"})
"""Codecs whose decoders may return another sample rate than the header states."""


def encoders_of_depth(plan: Plan, encoders: Sequence[VerifiedEncoder]) -> list[VerifiedEncoder]:
    """Leave out software that would reduce 10 bits to 8, if other software does not.

    Hardware stays: where it may fall back, that is recorded.
    """
    video = plan.video
    rows = [row for row in encoders if row.encoder.hardware or row.encoder.ten_bit]
    if video is None or not any(is_ten_bit(video.stream, row.encoder) for row in rows):
        return list(encoders)
    return rows


def encoders_that_keep(plan: Plan, encoders: Sequence[VerifiedEncoder]) -> list[VerifiedEncoder]:
    """Leave out what would lose bits or HDR data of the picture, if something else does not."""
    rows = encoders_of_depth(plan, encoders)
    if plan.video is None or not plan.video.stream.side_data & HDR_SIDE_DATA:
        return rows
    return [row for row in rows if keeps_hdr_data(row.tools.version)] or rows


def require_decoder(attempt: Attempt, plan: Plan, row: VerifiedEncoder) -> None:
    """Raise `Lacking` if this row's ffmpeg cannot decode the source; another one may.

    Not every build decodes AV1: what is listed as a decoder may only drive hardware. For a codec that
    an engine cannot be asked for, ffmpeg itself says whether it can.
    """
    codec = plan.video.stream.codec if plan.video else None
    readers = attempt.context.capabilities.readers
    if codec in CODECS and row.tools.ffmpeg not in readers.get(codec, ()):
        raise Lacking(f"This engine's ffmpeg cannot decode {codec} video.")


async def first_that_works(
    attempt: Attempt,
    encoders: Sequence[VerifiedEncoder],
    work: Callable[[VerifiedEncoder], Awaitable[T]],
) -> tuple[T, tuple[str, ...]]:
    """Do `work` with the first encoder that works.

    What an encoder or its ffmpeg lacks, the next one may have, and so may another build if one gave up
    without saying why. Where nothing is lacking, only hardware may fall back, and only where the settings permit it.

    Returns its result, and a note on each hardware encoder that failed, for the job's record.
    """
    fallbacks: list[str] = []
    faults: list[EngineFault] = []
    for number, row in enumerate(encoders, 1):
        hardware, name = row.encoder.hardware, row.encoder.name
        try:
            return await work(row), tuple(fallbacks)
        except EngineFault as fault:
            others = {other.tools.ffmpeg for other in encoders[number:]} - {row.tools.ffmpeg}
            may_be_build = isinstance(fault, FfmpegFailed) and bool(others)
            is_lacking = isinstance(fault, Lacking) or may_be_build
            if not (attempt.config.software_fallback if hardware else is_lacking):
                raise
            faults.append(fault)
            if hardware:
                attempt.log.warning("hardware encoder failed", encoder=name, reason=fault.message)
                fallbacks.append(fallback_from(name))
            else:
                ffmpeg = row.tools.ffmpeg
                attempt.log.info("ffmpeg lacks something", ffmpeg=ffmpeg, reason=fault.message)
    for last in faults:
        if len(faults) == 1 or isinstance(last, Lacking):
            raise last
    raise EngineFault("Every encoder of this engine failed: " + ", ".join(fallbacks))


def require_whole_sound(request: Request, source: CheckedSource, encoded: Encoded) -> None:
    """Raise `Lacking` if this ffmpeg decoded much less sound than the packets have; pure.

    ffmpeg 5.1 decodes only the first of several frames in a packet (AMR in 3GP) and says nothing. The
    gaps between them keep the sound's length, so that comparing durations does not find it.
    """
    for stream_out in request.plan.output_streams:
        stream, packets = stream_out.stream, source.scan.of(stream_out.stream.index)
        read = encoded.diagnosis.read.get(stream.index)
        if stream.kind != "audio" or stream_out.action == "copy" or stream.codec in _OTHER_RATES:
            continue
        if read is None or read.samples is None or not (stream.sample_rate and packets.count):
            continue
        stated_s = packets.total_s * packets.shown / packets.count
        decoded_s = read.samples / stream.sample_rate
        if decoded_s < stated_s * _SOUND_SHARE_MIN - _SOUND_SLACK_S:
            raise Lacking(
                f"This engine's ffmpeg decodes only {decoded_s:.2f} s of the {stated_s:.2f} s of "
                f"{stream.label}."
            )


async def run_encode(attempt: Attempt, source: CheckedSource, request: Request) -> Encoded:
    """Run the encode of `request` in the attempt's folder, and track its progress."""
    duration_s = source.duration_s

    def report(progress: EncodeProgress, part: float) -> None:
        attempt.tracker.encoding(progress, part, duration_s)

    ffmpeg = attempt.ffmpeg.using(request.tools)
    encoded = await encode(
        ffmpeg,
        request,
        report,
        cwd=attempt.folder,
        duration_s=duration_s,
        before_key=source.before_first_key,
    )
    if request.is_damaged:
        return encoded
    require_whole_sound(request, source, encoded)
    whole = await confirm_source(ffmpeg, request, encoded, source.url, duration_s)
    return replace(encoded, is_confirmed_whole=whole)
