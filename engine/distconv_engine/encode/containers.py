"""List the containers, and which streams each of them can copy, convert or not contain.

A stream is copied if the container accepts it, else converted to the container's own codec, else
it is unsupported, and the job's `on_unsupported` decides. Copying is never worse than encoding
again, so it comes first.
"""

from dataclasses import dataclass
from typing import Literal

from distconvd.model import CONTAINERS as RULES
from distconvd.model import ContainerName, ContainerRules

TEXT_SUBTITLES = frozenset({"subrip", "ass", "ssa", "mov_text", "webvtt", "text"})
BITMAP_SUBTITLES = frozenset({"hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle", "xsub"})
_PCM = frozenset({"pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"})
_COMMON_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3"})


@dataclass(frozen=True, slots=True)
class Container:
    """One container. `format` is ffmpeg's muxer, `demuxer` the first name of its demuxer."""

    name: ContainerName
    format: str
    demuxer: str
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
            "mp4", "mp4", "mov",
            audio_copied=_COMMON_AUDIO | {"opus", "alac", "flac"},
            subtitles_copied=frozenset({"mov_text"}), text_made="mov_text", covers="stream",
            edit_lists=True,
        ),
        Container(
            "mov", "mov", "mov",
            audio_copied=_COMMON_AUDIO | _PCM | {"alac"},
            subtitles_copied=frozenset({"mov_text"}), text_made="mov_text", edit_lists=True,
        ),
        Container(
            "webm", "webm", "matroska",
            audio_copied=frozenset({"opus", "vorbis"}),
            subtitles_copied=frozenset({"webvtt"}), text_made="webvtt",
        ),
        Container(
            "mkv", "matroska", "matroska",
            audio_copied=_COMMON_AUDIO | _PCM | {"opus", "vorbis", "flac", "alac", "mp2", "dts", "truehd"},
            subtitles_copied=frozenset({"subrip", "ass", "ssa", "webvtt", "hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"}),
            text_made="subrip", styled_text=True, covers="attachment", attachments=True,
        ),
        Container(
            "ts", "mpegts", "mpegts",
            audio_copied=_COMMON_AUDIO | {"mp2", "opus"},
            subtitles_copied=frozenset({"dvb_subtitle", "dvb_teletext"}), text_made=None,
            chapters=False,
        ),
    )
}  # fmt: skip
