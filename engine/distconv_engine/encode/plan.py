"""Decide what becomes of each stream of a source: copied, encoded, dropped or refused; pure.

The plan is made from the job and the probed source. The command is built from it, the output is
verified against it, and the report lists it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from distconv_engine.encode.pace import UNCHANGED, Pace, pace_of
from distconv_engine.failures import InputFault
from distconv_engine.ffmpeg.codecs import COVERS, TEXT_SUBTITLES, audio_codec, video_codec
from distconv_engine.ffmpeg.containers import CONTAINERS, Container
from distconv_engine.ffmpeg.demuxers import demuxer_of
from distconv_engine.media.frame_times import Timeline
from distconv_engine.media.packets import Edit
from distconv_engine.media.probe import Probe, Stream
from distconvd.model import (
    AUDIO_CODECS,
    CODECS,
    ContainerName,
    Job,
    TranscodeOptions,
    canonical_codec,
    container_of,
    find_fault,
)

Action = Literal["encode", "copy"]
_CHANNELS_MAX = 8
"""More are encoded only if their layout says how to downmix them, and the codec allows it."""
_UNNAMED = " channels ("
"""In ffmpeg's name of channels without a standard layout: `1 channels (FL)`, as cameras write it."""
_MAKERS = ("com.apple.", "com.android.")
"""How the names of tags begin that phones write."""
_USUAL = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


@dataclass(frozen=True, slots=True)
class OutputStream:
    """One stream of the output."""

    stream: Stream
    action: Action
    codec: str
    """Codec in the output."""
    edit: Edit | None = None
    """Of a copy: the part that the output has to hide, as the source does."""

    @property
    def is_av(self) -> bool:
        """Whether it is video or audio; a cover is neither."""
        return self.stream.is_video or self.stream.kind == "audio"

    @property
    def label(self) -> str:
        """How the result names it."""
        how = "copied" if self.action == "copy" else f"to {self.codec}"
        if self.is_downmixed:
            how += f", {self.stream.layout} downmixed"
        elif self.relabelled is not None:
            how += f", {self.stream.layout} as {self.relabelled}"
        return f"{self.stream.label} {how}"

    @property
    def is_downmixed(self) -> bool:
        """Whether its codec lacks its layout (AAC: height speakers, say), so that channels are mixed
        together."""
        layout = self.stream.layout if self.stream.has_layout else None
        accepted = audio_codec(self.codec).layouts
        if layout is None or self.action != "encode" or accepted is None:
            return False
        return self.relabelled is None and layout not in accepted

    @property
    def relabelled(self) -> str | None:
        """The usual layout for its number of channels, if encoded audio has no standard layout."""
        is_odd = _UNNAMED in (self.stream.layout or "")
        return _USUAL.get(self.stream.channels) if is_odd and self.action == "encode" else None


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole output."""

    codec: str
    container: Container
    output_streams: tuple[OutputStream, ...]
    """In the output's order: every container has its covers after the tracks."""
    dropped: tuple[str, ...]
    keep_chapters: bool
    states_marks: bool = False
    """Whether the source says of each stream if it is a default, so that the output has to say so."""
    created: str | None = None
    """When the source was recorded."""
    has_free_tags: bool = False
    """Whether the source has tags with names of a maker's own, such as a phone's."""
    pace: Pace = UNCHANGED
    """When the frames of its video are shown."""

    @property
    def video(self) -> OutputStream | None:
        """The video stream, if there is one."""
        return next(
            (stream_out for stream_out in self.output_streams if stream_out.stream.is_video), None
        )

    @property
    def video_number(self) -> int | None:
        """The index of the video stream in the output."""
        return next(
            (n for n, found in enumerate(self.output_streams) if found.stream.is_video), None
        )

    @property
    def av_streams(self) -> list[tuple[int, OutputStream]]:
        """The video and audio streams, each with its index in the output."""
        return [
            (number, stream_out)
            for number, stream_out in enumerate(self.output_streams)
            if stream_out.is_av
        ]

    @property
    def attached_covers(self) -> list[OutputStream]:
        """Covers that become attachments, which ffmpeg takes from files instead of streams."""
        attached = self.container.covers == "attachment"
        return [
            stream_out
            for stream_out in self.output_streams
            if attached and stream_out.stream.is_cover
        ]

    def labels(self) -> list[str]:
        """What is kept, as the job's result lists it."""
        return [stream_out.label for stream_out in self.output_streams] + (
            ["chapters"] if self.keep_chapters else []
        )


@dataclass(slots=True)
class _Draft:
    """A plan for one container, and what the container does not support."""

    container: Container
    output_streams: list[OutputStream]
    dropped: list[str]
    others: list[str]
    """More video streams than the one that is encoded, whatever the container."""
    unsupported: list[str]
    """What the container does not support."""
    degraded: list[str]
    """What it supports, but worse than another container would."""


def make_plan(
    job: Job,
    probe: Probe,
    edits: Mapping[int, Edit] | None = None,
    timeline: Timeline | None = None,
) -> Plan:
    """Return the plan; raises `InputFault` when the job asks for the impossible.

    Args:
        job: what is asked for.
        probe: what the source says of itself.
        edits: where edit lists hide a part of a stream, by stream index.
        timeline: when the frames of the main video are shown, if the source says so.
    """
    codec = canonical_codec(job.target_codec)
    if codec not in CODECS:
        known = ", ".join(CODECS)
        raise InputFault(f"Unknown codec '{job.target_codec}'. Expected one of: {known}.")
    fault = find_fault(job.options, codec, job.output)
    if fault is not None:
        raise InputFault(str(fault))
    drafts = [
        _draft(codec, row, job.options, probe, edits or {}) for row in _containers(job, codec)
    ]
    whole = [draft for draft in drafts if not draft.unsupported]
    best = [draft for draft in whole if not draft.degraded]
    plan = _finish(codec, job.options, probe, (best or whole or drafts)[0], edits or {})
    return replace(plan, pace=pace_of(probe.main_video, job.options, timeline))


def _containers(job: Job, codec: str) -> list[Container]:
    """Return the container that the job names, or those of its codec, the preferred one first."""
    named = job.options.container or _container_of_name(job)
    names = CODECS[codec].containers if named is None else (named,)
    rows = [CONTAINERS[name] for name in names]
    return [row for row in rows if _fits(row, job.options)]


def _fits(container: Container, options: TranscodeOptions) -> bool:
    """Whether a container supports what the options ask for, apart from the codec."""
    encodes_audio = options.audio_codec in AUDIO_CODECS
    takes_audio = not encodes_audio or options.audio_codec in container.rules.audio
    return takes_audio and (container.rules.faststart or not options.faststart)


def _container_of_name(job: Job) -> ContainerName | None:
    """Return the container that the requested file name implies, if it has a known suffix."""
    if job.output is None:
        return None
    return container_of(job.output.name or job.output.url or "")


def _finish(
    codec: str,
    options: TranscodeOptions,
    probe: Probe,
    draft: _Draft,
    edits: Mapping[int, Edit],
) -> Plan:
    container = draft.container
    if probe.main_video is not None and codec not in container.video:
        raise InputFault(f"The container {container.name} cannot hold {codec} video.")
    chapters = probe.chapters > 0
    unsupported = list(draft.unsupported)
    if chapters and not container.chapters:
        unsupported.append("chapters")
    if draft.others and options.on_unsupported == "fail":
        main = probe.main_video.label if probe.main_video else ""
        raise InputFault(
            f"The source has {len(draft.others) + 1} video streams, and an output has one: {main}. Set "
            f"options.on_unsupported to 'drop' to leave out {', '.join(draft.others)}."
        )
    if unsupported and options.on_unsupported == "fail":
        raise InputFault(
            f"The container {container.name} with {codec} cannot hold {', '.join(unsupported)}. "
            f"{_way_out(unsupported, codec, options, probe, edits)}"
        )
    if not any(stream_out.stream.kind in ("video", "audio") for stream_out in draft.output_streams):
        raise InputFault("The output would be empty: neither video nor audio would be kept.")
    return Plan(
        codec=codec,
        container=container,
        output_streams=tuple(
            sorted(draft.output_streams, key=lambda stream_out: stream_out.stream.is_cover)
        ),
        dropped=tuple(draft.dropped + draft.others + unsupported),
        keep_chapters=chapters and container.chapters,
        states_marks=demuxer_of(probe.format).states_marks,
        created=probe.created,
        has_free_tags=any(name.startswith(_MAKERS) for name in probe.tags),
    )


def _way_out(
    unsupported: Sequence[str],
    codec: str,
    options: TranscodeOptions,
    probe: Probe,
    edits: Mapping[int, Edit],
) -> str:
    """Say what helps: another container, but only if there is one."""
    drafts = [
        _draft(codec, row, options, probe, edits)
        for row in CONTAINERS.values()
        if probe.main_video is None or codec in row.video
    ]
    if any(all(lost in draft.unsupported for draft in drafts) for lost in unsupported):
        return "No container can: set options.on_unsupported to 'drop' to convert the rest."
    return "Choose another container, or set options.on_unsupported to 'drop'."


def _draft(
    codec: str,
    container: Container,
    options: TranscodeOptions,
    probe: Probe,
    edits: Mapping[int, Edit],
) -> _Draft:
    draft = _Draft(container, [], [], [], [], [])
    for stream in probe.streams:
        if stream.is_cover:
            _place_cover(draft, container, stream)
        elif stream.kind == "video":
            _place_video(draft, codec, container, probe, stream)
        elif stream.kind == "audio":
            _place_audio(draft, container, options, stream, edits.get(stream.index))
        elif stream.kind == "subtitle":
            _place_subtitle(draft, container, options, stream)
        elif stream.kind == "attachment":
            _place_attachment(draft, container, stream)
        else:
            draft.dropped.append(stream.label)  # time codes and the like: neither video nor audio
    return draft


def _place_video(
    draft: _Draft, codec: str, container: Container, probe: Probe, stream: Stream
) -> None:
    if stream is not probe.main_video:
        draft.others.append(stream.label)
        return
    if stream.dolby_vision_only is not None:
        raise InputFault(
            f"{stream.label} is Dolby Vision profile {stream.dolby_vision_only}, whose colours only a decoder "
            "for Dolby Vision can show: converted, they would be wrong. Export it with a profile that other "
            "players can show (8.1 or 8.4), or as HDR10."
        )
    if codec not in container.video:
        draft.unsupported.append(f"{codec} video")
    if stream.colour.is_hdr and not video_codec(codec).carries_hdr:
        draft.unsupported.append(f"the HDR colours of {stream.label}")
    if stream.has_alpha:  # no encoder here supports it, so another container would not help
        draft.dropped.append(f"the alpha channel of {stream.label}")
    draft.output_streams.append(OutputStream(stream, "encode", codec))


def _place_cover(draft: _Draft, container: Container, stream: Stream) -> None:
    if container.covers and stream.codec in COVERS:
        draft.output_streams.append(OutputStream(stream, "copy", stream.codec))
    else:
        draft.unsupported.append(stream.label)


def _place_audio(
    draft: _Draft,
    container: Container,
    options: TranscodeOptions,
    stream: Stream,
    edit: Edit | None,
) -> None:
    wanted = options.audio_codec
    if wanted == "none":
        draft.dropped.append(stream.label)
    elif stream.is_iamf:
        draft.unsupported.append(f"the immersive sound (IAMF) of {stream.label}")
    elif stream.codec == "unknown" or stream.channels == 0:
        draft.unsupported.append(stream.label)
    elif wanted == "copy" or (wanted is None and options.audio_bitrate_kbps is None):
        _copy_audio(draft, container, stream, edit, must=wanted == "copy")
    else:
        _encode_audio(draft, stream, wanted or container.audio_made)


def _encode_audio(draft: _Draft, stream: Stream, codec: str) -> None:
    if (stream.layout or "").startswith("ambisonic"):  # it cannot be encoded as loudspeakers
        draft.unsupported.append(f"the {stream.layout} audio of {stream.label} as {codec}")
        return
    can_downmix = stream.has_layout and audio_codec(codec).downmixes_many
    if stream.channels > _CHANNELS_MAX and not can_downmix:
        draft.unsupported.append(f"the {stream.channels} channels of {stream.label} as {codec}")
    else:
        draft.output_streams.append(OutputStream(stream, "encode", codec))


def _copy_audio(
    draft: _Draft, container: Container, stream: Stream, edit: Edit | None, *, must: bool
) -> None:
    can = stream.codec in container.audio_copied
    # A copy includes what an edit list hides, which only an edit list of the output can hide again;
    # ffmpeg writes one only for the beginning.
    hides = edit is None or (edit == "head" and container.edit_lists)
    if can and hides:
        draft.output_streams.append(OutputStream(stream, "copy", stream.codec, edit))
    elif must:
        lost = f"a copy of {stream.label} with its edit list" if can else stream.label
        draft.unsupported.append(lost)
    else:
        _encode_audio(draft, stream, container.audio_made)


def _place_subtitle(
    draft: _Draft, container: Container, options: TranscodeOptions, stream: Stream
) -> None:
    if options.subtitles == "drop":
        draft.dropped.append(stream.label)
    elif stream.codec in container.subtitles_copied:
        draft.output_streams.append(OutputStream(stream, "copy", stream.codec))
    elif stream.codec in TEXT_SUBTITLES and container.text_made:
        if TEXT_SUBTITLES[stream.codec].is_styled and not container.styled_text:
            draft.degraded.append(stream.label)
        draft.output_streams.append(OutputStream(stream, "encode", container.text_made))
    else:
        draft.unsupported.append(stream.label)


def _place_attachment(draft: _Draft, container: Container, stream: Stream) -> None:
    if container.attachments:
        draft.output_streams.append(OutputStream(stream, "copy", stream.codec))
    else:
        draft.unsupported.append(stream.label)
