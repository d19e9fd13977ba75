"""Run the encode, and classify a failure by whose fault it is.

ffmpeg's exit code is checked last: it is 0 even for a source that breaks off.
"""

import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from distconv_engine.encode.command import Request, commands, cover_commands, target_size
from distconv_engine.failures import (
    EngineFault,
    FfmpegFailed,
    Incapable,
    InputFault,
    InsufficientSpace,
    Lacking,
)
from distconv_engine.ffmpeg.child import LineSplitter
from distconv_engine.ffmpeg.progress import EncodeProgress, ProgressParser
from distconv_engine.ffmpeg.run import RunResult
from distconv_engine.ffmpeg.stderr import Diagnosis
from distconv_engine.media.evidence import weigh_decode
from distconv_engine.media.ffmpeg import Ffmpeg
from distconvd.model import Capability

_BATCH_PIXELS_MIN = 1_500_000
"""From 1080p on, cropped films included; with smaller pictures a frame takes a fraction of a slice, and
whatever waits for the frame waits for the slice (docs/design.md, "Speed")."""
_BITRATE_TOO_LOW = re.compile(r"requested bitrate is too low[^\n]*")
"""A message of libx264 and libx265, which find this out only after the first pass."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encode that succeeded, with the counts that `verify` compares with source and output."""

    diagnosis: Diagnosis
    last: EncodeProgress
    is_confirmed_whole: bool = False
    """An unknown message about the source was not confirmed by a strict decode of it."""


async def encode(
    ffmpeg: Ffmpeg,
    request: Request,
    on_progress: Callable[[EncodeProgress, float], None],
    *,
    cwd: Path,
    duration_s: float | None,
    before_key: Mapping[int, int],
) -> Encoded:
    """Run the commands of `request`; raises a `JobFailure` that says what ffmpeg found.

    Args:
        ffmpeg: runs it.
        request: what to run.
        on_progress: is called with each block of progress and the fraction done of all passes.
        cwd: the attempt's folder.
        duration_s: duration of the source, for the fraction done.
        before_key: how many packets of the source come before the first key frame, by stream.
    """
    *earlier, last = commands(request)
    for argv in cover_commands(request):
        classify_exit(await ffmpeg.run(argv, cwd=cwd))
    passes = len(earlier) + 1
    for number, argv in enumerate(earlier):
        part = _Part(number, passes, duration_s, on_progress)
        await _run_one(ffmpeg, argv, part, cwd, request, before_key)
    part = _Part(len(earlier), passes, duration_s, on_progress)
    return await _run_one(ffmpeg, last, part, cwd, request, before_key)


def is_batch_work(request: Request) -> bool:
    """Whether the encode gains from keeping its cores longer (`become_batch`): with large pictures."""
    video = request.plan.video
    if video is None:
        return False
    width, height = target_size(video.stream, request.options, request.encoder)
    return width * height >= _BATCH_PIXELS_MIN


@dataclass(slots=True)
class _Part:
    """One pass of several, as a share of the whole."""

    number: int
    of: int
    duration_s: float | None
    on_progress: Callable[[EncodeProgress, float], None]
    last: EncodeProgress = EncodeProgress()  # noqa: RUF009 - it is frozen

    def take(self, progress: EncodeProgress) -> None:
        self.last = progress
        share = (self.number + progress.fraction(self.duration_s)) / self.of
        self.on_progress(progress, share)


async def _run_one(
    ffmpeg: Ffmpeg,
    argv: list[str],
    part: _Part,
    cwd: Path,
    request: Request,
    before_key: Mapping[int, int],
) -> Encoded:
    parser = ProgressParser(part.take)
    result = await ffmpeg.run(
        argv,
        on_stdout=LineSplitter(parser.line).feed,
        sign_of_life=lambda: (part.last.frame, part.last.out_time_s, part.last.total_bytes),
        stop_on_damage=not request.is_damaged,
        cwd=cwd,
        pass_fds=() if request.tee_fd is None else (request.tee_fd,),
        batch_scheduling=is_batch_work(request),
    )
    classify_exit(result, before_key, is_damaged=request.is_damaged)
    return Encoded(result.diagnosis, part.last)


def classify_exit(
    result: RunResult, before_key: Mapping[int, int] | None = None, *, is_damaged: bool = False
) -> None:
    """Raise the failure that an ffmpeg run ended with; return when it succeeded. Pure.

    `before_key` is how many packets come before the first key frame, by stream. If the source
    `is_damaged` and to be converted all the same, what is lost is no failure.
    """
    diagnosis, tail = result.diagnosis, result.diagnosis.tail
    if diagnosis.disk_full:
        raise InsufficientSpace("The engine's disk is full.", log_tail=tail)
    if diagnosis.lacks:
        words = f"This engine's ffmpeg has no {diagnosis.lacks}."
        if diagnosis.is_packed:
            raise Incapable(words, log_tail=tail, needs=[Capability.ZLIB_TRACKS])
        raise Lacking(words, log_tail=tail)
    if diagnosis.damage and not is_damaged:
        raise InputFault(f"The source is damaged: {diagnosis.damage[0]}", log_tail=tail)
    if not is_damaged:
        weigh_decode(diagnosis, before_key or {})
    too_low = _BITRATE_TOO_LOW.search(tail)
    if result.code != 0 and too_low:
        raise InputFault(
            "'options.video_bitrate_kbps' is too low for two passes over this source; the encoder"
            f" says: {too_low[0]}",
            log_tail=tail,
        )
    if result.code < 0:
        name = signal.Signals(-result.code).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        raise EngineFault(f"ffmpeg was killed by {name}{hint}.", log_tail=tail)
    if result.code > 0 and is_damaged:
        words = diagnosis.last_words or "no message"
        raise InputFault(
            f"The source is damaged, and what is left cannot be converted: {words}", log_tail=tail
        )
    if result.code > 0 and diagnosis.doubts:
        doubt = next(iter(diagnosis.doubts.values()))
        raise InputFault(f"The source is damaged: {doubt.words}", log_tail=tail)
    if result.code != 0:
        words = result.diagnosis.last_words or "no message"
        raise FfmpegFailed(f"ffmpeg failed (exit code {result.code}): {words}", log_tail=tail)
