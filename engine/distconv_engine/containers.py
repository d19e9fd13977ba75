"""The container table: what each container can hold, and as what.

A stream is copied when the container takes it as it is, else turned into the container's own kind,
else it cannot be held, which the job's `on_unsupported` decides about. Copying is never worse than
encoding again, so it comes first.
"""

from dataclasses import dataclass
from typing import Literal

ContainerName = Literal["mp4", "mkv", "webm", "mov", "ts"]

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
    suffix: str
    video: frozenset[str]
    audio_copied: frozenset[str]
    audio_made: str
    """The audio codec made of what can not be copied."""
    audio_allowed: frozenset[str]
    """Audio codecs that a job may ask for."""
    subtitles_copied: frozenset[str]
    text_made: str | None
    """What text subtitles become that can not be copied; None: it holds none."""
    styled_text: bool = False
    """Whether ASS keeps its looks."""
    covers: bool = False
    chapters: bool = True
    attachments: bool = False


CONTAINERS: dict[ContainerName, Container] = {
    row.name: row
    for row in (
        Container(
            "mp4", "mp4", "mov", ".mp4",
            video=frozenset({"h264", "hevc", "vp9", "av1"}),
            audio_copied=_COMMON_AUDIO | {"opus", "alac", "flac"},
            audio_made="aac", audio_allowed=frozenset({"aac", "opus"}),
            subtitles_copied=frozenset({"mov_text"}), text_made="mov_text", covers=True,
        ),
        Container(
            "mov", "mov", "mov", ".mov",
            video=frozenset({"h264", "hevc"}),
            audio_copied=_COMMON_AUDIO | _PCM | {"alac"},
            audio_made="aac", audio_allowed=frozenset({"aac"}),
            subtitles_copied=frozenset({"mov_text"}), text_made="mov_text", covers=True,
        ),
        Container(
            "webm", "webm", "matroska", ".webm",
            video=frozenset({"vp8", "vp9", "av1"}),
            audio_copied=frozenset({"opus", "vorbis"}),
            audio_made="opus", audio_allowed=frozenset({"opus"}),
            subtitles_copied=frozenset({"webvtt"}), text_made="webvtt",
        ),
        Container(
            "mkv", "matroska", "matroska", ".mkv",
            video=frozenset({"h264", "hevc", "vp8", "vp9", "av1"}),
            audio_copied=_COMMON_AUDIO | _PCM | {"opus", "vorbis", "flac", "alac", "mp2", "dts", "truehd"},
            audio_made="aac", audio_allowed=frozenset({"aac", "opus"}),
            subtitles_copied=frozenset({"subrip", "ass", "ssa", "webvtt", "hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"}),
            text_made="subrip", styled_text=True, covers=True, attachments=True,
        ),
        Container(
            "ts", "mpegts", "mpegts", ".ts",
            video=frozenset({"h264", "hevc"}),
            audio_copied=_COMMON_AUDIO | {"mp2", "opus"},
            audio_made="aac", audio_allowed=frozenset({"aac", "opus"}),
            subtitles_copied=frozenset({"dvb_subtitle", "dvb_teletext"}), text_made=None,
            chapters=False,
        ),
    )
}  # fmt: skip

PREFERENCE: dict[str, tuple[ContainerName, ...]] = {
    "h264": ("mp4", "mkv"),
    "hevc": ("mp4", "mkv"),
    "vp8": ("webm", "mkv"),
    "vp9": ("webm", "mkv"),
    "av1": ("mp4", "mkv"),
}
"""Where a job names no container: the first that holds everything in the source."""
SUFFIXES: dict[str, ContainerName] = {row.suffix: row.name for row in CONTAINERS.values()}
