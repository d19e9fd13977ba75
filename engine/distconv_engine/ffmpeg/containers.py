"""List the containers: how ffmpeg writes each of them, and what of a source fits into it.

What a job may ask of a container is in the shared table `distconvd.model.CONTAINERS`; a row here has
only what concerns ffmpeg. What containers of one kind have in common is in their `Family`. Nothing
else in the engine tests for a container by its name.

A stream is copied if the container accepts it, else converted to the container's own codec, else
it is unsupported, and the job's `on_unsupported` decides. Copying is never worse than encoding
again, so it comes first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from distconvd.model import CONTAINERS as RULES
from distconvd.model import ContainerName, ContainerRules

_PCM = frozenset({"pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"})
_COMMON_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3"})


@dataclass(frozen=True, slots=True)
class IndexFlags:
    """Values of ffmpeg's `-movflags`: where a container with an index of all packets has it."""

    first: str
    """Before the packets; without it, after them."""
    fragmented: str
    """In each fragment, so that nothing is rewritten: for a streaming upload."""
    teed: tuple[str, ...]
    """Options of the tee muxer's branch to the concurrent decoder, which gets short fragments."""


@dataclass(frozen=True, slots=True)
class Family:
    """What containers of one kind have in common."""

    demuxer: str
    """The first name of the demuxer, which `DEMUXERS` lists."""
    index_flags: IndexFlags | None = None
    """None: what has been written is never rewritten."""
    video_tags: Mapping[str, str] = field(default_factory=dict[str, str])
    """Tags to set for video codecs; Apple's players accept no other."""
    copies_adts: bool = True
    """Whether its muxer removes AAC's ADTS headers in time, or keeps them."""
    audio_clock_is_rate: bool = False
    """Whether its muxer counts the time of audio in samples, which the tee muxer forgets."""
    tee_shifts_clock: bool = False
    """Whether the time of its packets would start elsewhere behind the tee muxer."""
    streams_subtitles: bool = True
    """Whether subtitles fit into a streaming upload."""
    streams_adts: bool = True
    """Whether a streaming upload can begin before the parameters of ADTS audio are known."""
    states_side_data: bool = True
    """Whether its header has the HDR data of the pictures, which else are in the pictures only."""
    titles_as_handlers: bool = False
    """Whether players look for the title of a stream in the name of its handler."""
    free_tags: str = ""
    """The flag of an index for tags that its usual list lacks, such as a phone's."""
    enables_first_subtitles: bool = False
    """Whether its muxer makes the first subtitles a default if none are."""
    logs_as_demuxer: bool = False
    """Whether ffmpeg's muxer and demuxer have the same name in the log, so that an error under that
    name may come from either."""


ISOBMFF = Family(
    "mov",
    index_flags=IndexFlags(
        first="+faststart",
        fragmented="+frag_keyframe+delay_moov+default_base_moof",
        teed=("movflags=+delay_moov+default_base_moof", "frag_duration=500000"),
    ),
    video_tags={"hevc": "hvc1"},
    copies_adts=False,
    audio_clock_is_rate=True,
    streams_subtitles=False,
    titles_as_handlers=True,
    free_tags="+use_metadata_tags",
    enables_first_subtitles=True,
)
MATROSKA = Family("matroska", streams_adts=False)
MPEGTS = Family("mpegts", states_side_data=False, tee_shifts_clock=True, logs_as_demuxer=True)


@dataclass(frozen=True, slots=True)
class Container:
    """One container that ffmpeg can write."""

    name: ContainerName
    muxer: str
    family: Family
    audio_copied: frozenset[str]
    subtitles_copied: frozenset[str]
    text_made: str | None
    """The codec of text subtitles that cannot be copied; None: it supports no text."""
    styled_text: bool = False
    """Whether ASS keeps its styling."""
    covers: Literal["stream", "attachment"] | None = None
    """How it stores a cover; None: it supports no covers."""
    edit_lists: bool = False
    """Whether it can hide the beginning of a copied stream from players."""
    chapters: bool = True
    attachments: bool = False
    audio_tags: Mapping[str, str] = field(default_factory=dict[str, str])
    """Tags of audio codecs for which other containers use tags of their own."""

    @property
    def rules(self) -> ContainerRules:
        """What a job may ask of it."""
        return RULES[self.name]

    @property
    def suffix(self) -> str:
        """The suffix of its file names."""
        return self.rules.suffix

    @property
    def video(self) -> frozenset[str]:
        """The video codecs that it supports."""
        return self.rules.video

    @property
    def audio_made(self) -> str:
        """The codec to which audio is converted that cannot be copied."""
        return self.rules.audio[0]


CONTAINERS: dict[ContainerName, Container] = {
    row.name: row
    for row in (
        Container(
            "mp4", "mp4", ISOBMFF,
            audio_copied=_COMMON_AUDIO | {"opus", "alac", "flac"},
            subtitles_copied=frozenset({"mov_text"}), text_made="mov_text", covers="stream",
            edit_lists=True,
            audio_tags={"aac": "mp4a", "mp3": "mp4a", "ac3": "ac-3", "eac3": "ec-3"},
        ),
        Container(
            "mov", "mov", ISOBMFF,
            audio_copied=_COMMON_AUDIO | _PCM | {"alac"},
            subtitles_copied=frozenset({"mov_text"}), text_made="mov_text", edit_lists=True,
            audio_tags={"aac": "mp4a", "mp3": ".mp3", "ac3": "ac-3", "eac3": "ec-3"},
        ),
        Container(
            "webm", "webm", MATROSKA,
            audio_copied=frozenset({"opus", "vorbis"}),
            subtitles_copied=frozenset({"webvtt"}), text_made="webvtt",
        ),
        Container(
            "mkv", "matroska", MATROSKA,
            audio_copied=_COMMON_AUDIO | _PCM | {"opus", "vorbis", "flac", "alac", "mp2", "dts", "truehd"},
            subtitles_copied=frozenset({"subrip", "ass", "ssa", "webvtt", "hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"}),
            text_made="subrip", styled_text=True, covers="attachment", attachments=True,
            audio_tags={"aac": "0x00ff", "mp2": "0x0050", "mp3": "0x0055", "ac3": "0x2000"},
        ),
        Container(
            "ts", "mpegts", MPEGTS,
            audio_copied=_COMMON_AUDIO | {"mp2", "opus"},
            subtitles_copied=frozenset({"dvb_subtitle", "dvb_teletext"}), text_made=None,
            chapters=False,
        ),
    )
}  # fmt: skip

TRIAL_CONTAINER = CONTAINERS["mkv"]
"""Takes every codec that an engine can be asked for, so encoders are tried with it."""
MUXER_NAMES = frozenset(row.muxer for row in CONTAINERS.values() if not row.family.logs_as_demuxer)
"""The components of ffmpeg's log that write a container, and never read one."""
