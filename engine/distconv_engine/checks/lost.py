"""Find what an output lacks of titles, marks, tags, colours and HDR data.

Not every container has a place for all of it, and not every encoder writes it, so what is lost is compared
when the output has been probed, and listed in `result.dropped`. It fails no job: a film without the name of
its camera is still the film.
"""

from collections.abc import Iterator, Mapping

from distconv_engine.encode.plan import Plan
from distconv_engine.media.probe import Probe, Stream
from distconvd.model import Limits

_TECHNICAL_TAGS = frozenset({
    "major_brand", "minor_version", "compatible_brands", "encoder", "encoding_tool", "duration",
    "metadatacreator", "hasaudio", "hasvideo", "hasmetadata", "audiosize", "videosize", "datasize",
    "canseektoend", "lasttimestamp", "totalduration", "totalframes", "bytelength", "deviceconformancetemplate",
    "isvbr", "wmfsdkversion", "wmfsdkneeded", "_statistics_tags", "bps", "number_of_frames", "number_of_bytes",
    "gapless_playback", "itunsmpb", "software", "uid", "generation_uid", "product_uid", "product_name",
    "product_version", "product_version_num", "company_name", "application_platform", "toolkit_version_num",
    "material_package_umid", "operational_pattern_ul",
})  # fmt: skip
"""Tags that describe how a file was written, not what it shows."""
_REFORMATTED_TAGS = ("creation_time", "date", "location", "track", "disc", "genre")
"""Tags that muxers write in a form of their own: it has to be there, whatever its form."""
_TAGS_NAMED_MAX = 12
_LOST_MAX = 40
_SIDE_DATA: dict[str, str] = {
    "Mastering display metadata": "the mastering display",
    "Content light level metadata": "the content light level",
    "Ambient viewing environment": "the viewing environment",
    "HDR Dynamic Metadata SMPTE2094-40 (HDR10+)": "the HDR10+ metadata",
    "HDR10+ Dynamic Metadata (SMPTE 2094-40)": "the HDR10+ metadata",
    "DOVI configuration record": "the Dolby Vision metadata",
    "Dolby Vision RPU Data": "the Dolby Vision metadata",
    "Dolby Vision Metadata": "the Dolby Vision metadata",
    "Stereo 3D": "the stereo layout",
    "Spherical Mapping": "the spherical projection",
}
"""The side data of pictures that a player needs, by ffmpeg's names."""


def find_lost(plan: Plan, source: Probe, found: Probe) -> tuple[str, ...]:
    """Return what the output lacks, in words; pure."""
    lost = list(_lost_tags(source.tags, found.tags))
    for before, after, is_first in _pairs(plan, found):
        lost += _lost_words(before, after)
        lost += _lost_marks(plan, before, after, is_first=is_first)
        if before.is_video:
            lost += _lost_colours(before, after)
            lost += _lost_side_data(plan, before, after, has_frame_data=found.has_frame_data)
    return tuple(words[: Limits.result_chars] for words in lost[:_LOST_MAX])


def _pairs(plan: Plan, found: Probe) -> Iterator[tuple[Stream, Stream, bool]]:
    """Pair each stream of the source with what it became, the next of its kind in the output; and say
    if it is the first of its kind."""
    for kind in ("video", "audio", "subtitle"):
        before = [
            s.stream for s in plan.output_streams if s.stream.kind == kind and not s.stream.is_cover
        ]
        for number, (stream, made) in enumerate(zip(before, found.of_kind(kind), strict=False)):
            yield stream, made, number == 0


def _lost_tags(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    lost = sorted(name for name in before if not _is_kept(name, before, after))
    if lost:
        more = len(lost) - _TAGS_NAMED_MAX
        named = ", ".join(lost[:_TAGS_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
        yield f"the {'tag' if len(lost) == 1 else 'tags'} {named}"


def _is_kept(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    is_translation = "-" in name and name.rpartition("-")[0] in before
    if name in _TECHNICAL_TAGS or is_translation or not before[name].strip():
        return True
    if name.startswith(_REFORMATTED_TAGS):
        return bool(after.get(name))
    return after.get(name, "").strip() == before[name].strip()


def _lost_words(before: Stream, after: Stream) -> Iterator[str]:
    if before.language is not None and after.language != before.language:
        yield f"the language of {before.label}"
    if before.title is not None and before.title not in (after.title, after.handler):
        yield f"the title of {before.label}"


def _lost_marks(plan: Plan, before: Stream, after: Stream, *, is_first: bool) -> Iterator[str]:
    for mark in sorted(before.marks - after.marks):
        if mark != "default" or not is_first:  # where none is marked, players take the first
            yield f"the mark '{mark}' of {before.label}"
    if plan.states_marks and before.kind == "subtitle" and "default" in after.marks - before.marks:
        yield f"that {before.label} is no default"


def _lost_colours(before: Stream, after: Stream) -> Iterator[str]:
    for name in ("primaries", "transfer", "matrix", "range"):
        was, now = getattr(before.colour, name), getattr(after.colour, name)
        is_stated = (name, was) != ("range", "pc") or before.is_full_range  # RGB has no other range
        is_usual = (name, was, now) == ("range", "tv", None)
        if was not in (None, "gbr", now) and is_stated and not is_usual:
            yield f"the colour {name} {was} of {before.label}, which is now {now or 'not stated'}"


def _lost_side_data(
    plan: Plan, before: Stream, after: Stream, *, has_frame_data: bool
) -> Iterator[str]:
    if before.colour.is_hdr and not plan.container.family.states_side_data and not has_frame_data:
        return  # a streaming upload is read once, so its pictures' data are not known
    words = {_SIDE_DATA[name] for name in before.side_data if name in _SIDE_DATA}
    kept = {_SIDE_DATA[name] for name in after.side_data if name in _SIDE_DATA}
    for lost in sorted(words - kept):
        yield f"{lost} of {before.label}"
