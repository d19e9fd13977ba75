"""Run the whole pipeline on each clip, and keep the outcome until the programs change.

A clip that fails is no error of the engine: it works on, without that capability. Its jobs are those of
the engine, but for the sources, which are in the package, and the outputs, which are thrown away.
"""

import hashlib
import os
import shutil
import traceback
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
import trio

from distconv_engine import __version__
from distconv_engine.attempts.context import Attempt, EngineContext
from distconv_engine.attempts.journal import Journal
from distconv_engine.attempts.progress_tracker import Tracker
from distconv_engine.failures import JobFailure, TransientFault
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.files import describe_fault, write_durably
from distconv_engine.pipeline.run import run_attempt
from distconv_engine.self_test.clips import CLIPS, FOLDER, Clip
from distconv_engine.self_test.outcome import Outcome, maybe_outcome
from distconvd.model import CODECS, Capability, Job, ReportedResult, TranscodeOptions

CLIP_S_MAX = 30.0


def outcome_key(tools: Tools, encoders: Iterable[str]) -> str:
    """Return a hash of all that an outcome depends on: programs, encoders, clips, this version."""
    digest = hashlib.sha256("|".join((__version__, tools.version, *encoders)).encode())
    spares = (spare.ffmpeg for spare in tools.spares)
    programs = (tools.ffmpeg, tools.ffprobe, *spares, tools.other_ffprobe)
    for path in (*map(Path, filter(None, programs)), *(clip.path for clip in CLIPS.values())):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


async def self_test(context: EngineContext, folder: Path, cache: Path) -> Outcome:
    """Return the outcome from `cache` if it is still valid; else convert each clip in `folder`."""
    names = [row.encoder.name for rows in context.capabilities.by_codec.values() for row in rows]
    key = await trio.to_thread.run_sync(outcome_key, context.tools, names)
    known = maybe_outcome(cache)
    if known is not None and known.key == key:
        return known
    try:
        outcome = Outcome(key, await _failures(context, folder))
        await trio.to_thread.run_sync(write_durably, cache, msgspec.json.encode(outcome))
    except TransientFault as fault:
        # Says nothing of ffmpeg: without a test, the engine counts as able, and asks again next time.
        context.log.warning("self-test not finished", reason=fault.message)
        return Outcome(key)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


async def _failures(context: EngineContext, folder: Path) -> dict[Capability, str]:
    """Convert all clips, as many at the same time as there are cores; return why some fail."""
    failed: dict[Capability, str] = {}
    limiter = trio.CapacityLimiter(os.cpu_count() or 1)
    transient: list[TransientFault] = []

    async def try_one(clip: Clip) -> None:
        async with limiter:
            try:
                words = await _convert(_attempt_of(context, clip, folder / clip.capability), clip)
            except TransientFault as fault:
                transient.append(fault)
                return
        if words is not None:
            failed[clip.capability] = words

    async with trio.open_nursery() as nursery:
        for clip in CLIPS.values():
            nursery.start_soon(try_one, clip)
    if transient:
        raise transient[0]
    return {name: failed[name] for name in CLIPS if name in failed}


def _attempt_of(context: EngineContext, clip: Clip, folder: Path) -> Attempt:
    config = msgspec.structs.replace(
        context.config, work_dir=folder, output=str(folder / "out"), source_root=[FOLDER]
    )
    journal = Journal(folder / "held", context.log)
    own = replace(context, config=config, journal=journal, lacking=frozenset())
    codec = clip.codec if own.capabilities.encoders(clip.codec) else own.capabilities.codecs[0]
    options = TranscodeOptions(preset=CODECS[codec].presets[0])
    job = Job("self-test", clip.path.as_uri(), codec, attempt=1, options=options)
    work = folder / "attempt"
    work.mkdir(parents=True, exist_ok=True)
    return Attempt(own, job, work, Tracker(), Controls())


async def _convert(attempt: Attempt, clip: Clip) -> str | None:
    """Convert one clip; return in words what is wrong, or None if nothing is."""
    with trio.move_on_after(CLIP_S_MAX):
        try:
            report = await run_attempt(attempt)
        except TransientFault:
            raise
        except JobFailure as failure:
            return failure.message
        except Exception as error:  # noqa: BLE001 - a bug costs the capability, not the engine
            attempt.log.error("bug in the engine", trace=traceback.format_exc())
            return f"A bug in the engine: {type(error).__name__}: {describe_fault(error)}"
        return _fault_of(clip, report.result or ReportedResult())
    return f"It took more than {CLIP_S_MAX:g} s."


def _fault_of(clip: Clip, result: ReportedResult) -> str | None:
    """Compare a result with what the clip contains; pure."""
    streams = len(result.kept or ())
    if streams != clip.streams:
        return f"The output has {streams} of {clip.streams} streams."
    if result.video_frames != clip.frames:
        return f"The output has {result.video_frames} of {clip.frames} frames."
    return None
