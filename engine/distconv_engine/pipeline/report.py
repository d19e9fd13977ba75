"""Build the report of a success: what became of the source, and what was verified."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from distconv_engine.attempts.context import Attempt
from distconv_engine.checks.output import Verified
from distconv_engine.checks.registry import Check, Note, in_order, other_ffmpeg
from distconv_engine.checks.source import CheckedSource
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.pipeline.outputs import Output, Published
from distconvd.model import CompleteReport, Limits, ReportedResult, mask_urls

_LISTS = ("kept", "dropped", "checks", "notes", "damage")
_RESULT_BYTES_MAX = Limits.body_bytes // 2
"""A result beyond this would not leave enough of a request's body for the rest of the report."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What each stage of a successful attempt has found."""

    source: CheckedSource
    output: Output
    verified: Verified
    published: Published
    chosen: Tools
    """The engine's own choice of ffmpeg."""
    fallbacks: tuple[str, ...]
    """A note on each encoder that failed before."""

    def checks(self) -> list[str]:
        """Return the names of all checks that passed."""
        passed = (*self.source.checks, *self.verified.checks, *self.published.checks)
        return in_order((*passed, Check.SOURCE_UNCHANGED))

    def damage(self) -> list[str]:
        """Return what of a damaged source is lost."""
        return [*self.source.damage, *self.verified.damage] if self.source.damage else []

    def notes(self) -> list[str]:
        """Return what else there is to know."""
        streamed = [Note.STREAMED.value] if self.source.path is None else []
        of_source = [note.value for note in self.source.notes]
        if self.output.encoded.is_confirmed_whole:
            of_source.append(Note.UNCONFIRMED_MESSAGE.value)
        other = other_ffmpeg(self.output.request.tools.origin) if self.is_by_spare else None
        took_over = [other.value] if other else []
        of_result = [*map(str, self.published.notes), *self.fallbacks, *took_over]
        return [*streamed, *of_source, *of_result]

    @property
    def is_by_spare(self) -> bool:
        """Whether another ffmpeg than the chosen one encoded it."""
        return self.output.request.tools.ffmpeg != self.chosen.ffmpeg


def report_of(attempt: Attempt, finished: Finished, *, wall_s: float) -> CompleteReport:
    """Return the report to send."""
    url, engine_id = finished.published.url, attempt.context.engine_id
    if not (attempt.job.output and attempt.job.output.url):
        url = mask_urls(url)  # the engine's own place, whose secrets are not the submitter's
    result = within_bounds(_result_of(finished, engine_id, wall_s))
    return CompleteReport(url, attempt.job.attempt, engine_id, result)


def within_bounds(result: ReportedResult) -> ReportedResult:
    """Return a result that the daemon takes, however many streams a file has and whatever they say.

    A long text is cut, and the last entry of a long list says how many are left out.
    """
    entries_max = Limits.result_entries
    lists = {name: getattr(result, name) for name in _LISTS}
    while True:
        cut = {name: shortened(found, entries_max) for name, found in lists.items() if found}
        bounded = msgspec.structs.replace(result, **cut)
        if len(msgspec.json.encode(bounded)) <= _RESULT_BYTES_MAX or entries_max == 1:
            return bounded
        entries_max //= 2


def shortened(entries: Sequence[str], entries_max: int) -> list[str]:
    """Return the entries within the bounds; the last one may say how many are left out."""
    texts = [
        text if len(text) <= Limits.result_chars else text[: Limits.result_chars - 1] + "…"
        for text in entries[:entries_max]
    ]
    left_out = len(entries) - entries_max
    if left_out > 0:
        texts[-1] = f"… and {left_out + 1} more, which are left out of this list"
    return texts


def _result_of(finished: Finished, engine_id: str, wall_s: float) -> ReportedResult:
    source, verified, request = finished.source, finished.verified, finished.output.request
    plan = request.plan
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
        engine_id=engine_id,
        ffmpeg_version=request.tools.version,
        encoder=request.encoder.name if plan.video else None,
        wall_s=round(wall_s, 3),
        kept=plan.labels(),
        dropped=[
            *plan.dropped,
            *(f"{stream.label}, which has no packets" for stream in source.empty),
            *(["an attachment without a name"] if Note.LOST_ATTACHMENT in source.notes else []),
            *verified.lost,
        ],
        checks=finished.checks(),
        notes=finished.notes() or None,
        damage=finished.damage() or None,
    )
