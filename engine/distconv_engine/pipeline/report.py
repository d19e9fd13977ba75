"""Build the report of a success: what became of the source, and what was verified."""

from distconv_engine.attempts.context import EngineContext
from distconv_engine.checks.output import Verified
from distconv_engine.checks.source import Source
from distconv_engine.pipeline.encoder_choice import Work
from distconvd.model import ReportedResult


def result_of(
    context: EngineContext,
    source: Source,
    work: Work,
    verified: Verified,
    wall_s: float,
    *more_checks: str,
) -> ReportedResult:
    """Return the result; `more_checks` are further names for its list of checks."""
    plan = work.request.plan
    return ReportedResult(
        size_bytes=verified.size_bytes,
        sha256=verified.sha256,
        duration_s=round(verified.duration_s, 3),
        video_frames=verified.video_frames,
        video_codec=plan.codec if plan.video else None,
        audio_codec=verified.audio_codec,
        width=verified.width,
        height=verified.height,
        source_size_bytes=source.state.size_bytes,
        source_duration_s=round(source.duration_s, 3),
        engine_id=context.engine_id,
        ffmpeg_version=context.tools.version,
        encoder=work.request.encoder.name if plan.video else None,
        wall_s=round(wall_s, 3),
        kept=plan.labels(),
        dropped=list(plan.dropped),
        checks=[*source.checks, *verified.checks, *more_checks],
    )
