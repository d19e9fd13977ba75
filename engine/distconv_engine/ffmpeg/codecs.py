"""List what the engine has to know of single codecs, by ffmpeg's names for them.

What a job may ask of a video codec is in the shared table `distconvd.model.CODECS`, and how an
encoder takes it in `distconv_engine.encode.encoders`. The rows here say how packets and streams of a
codec behave, also of codecs that only sources have. Nothing else in the engine tests for a codec by
its name. A codec without a row has none of the stated properties.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class VideoCodec:
    """How the packets of a video codec behave."""

    name: str
    never_zero: bool = False
    """No packet has a long run of zero bytes: emulation prevention or arithmetic coding rules it
    out, so such a run is damage."""
    has_hidden_packets: bool = False
    """There may be packets without a picture (alternate references, skipped frames)."""
    parser: str | None = None
    """The bitstream filter that parses every header."""
    carries_hdr: bool = True
    ten_bit_for_hdr_only: bool = False
    """Most players lack support for its 10 bits, so only HDR, which needs them, gets them."""


@dataclass(frozen=True, slots=True)
class AudioCodec:
    """How an audio codec is encoded or copied."""

    name: str
    encoder: str | None = None
    """ffmpeg's encoder; None: it is only copied."""
    kbps: Mapping[int, int] = field(default_factory=dict[int, int])
    """The usual bit rate by number of channels, the next row for numbers between."""
    kbps_max_a_channel: int | None = None
    """The encoder rejects more."""
    layouts: frozenset[str] | None = None
    """The channel layouts that the encoder accepts; None: every encode goes through the filter."""
    layout_filter: str = ""
    """Mixes channels to a layout that the encoder accepts."""
    downmixes_many: bool = False
    """Whether more than 8 channels are mixed down if their layout is known."""
    copy_options: tuple[str, ...] = ()
    priming_s_max: float = 0.15
    """The most that an encoder inserts in front for players to skip: HE-AAC's 5,186 samples."""


@dataclass(frozen=True, slots=True)
class TextSubtitles:
    """A codec of subtitles that consist of text."""

    name: str
    encoder: str | None = None
    """ffmpeg's encoder; None: no container asks for it."""
    is_styled: bool = False


@dataclass(frozen=True, slots=True)
class Cover:
    """A picture codec that may be a cover."""

    codec: str
    suffix: str
    mime: str


_AAC_LAYOUTS = frozenset({
    "mono", "stereo", "downmix", "2.1", "3.0", "3.0(back)", "3.1", "4.0", "4.1", "quad", "quad(side)",
    "5.0", "5.0(side)", "5.1", "5.1(side)", "6.0", "6.0(front)", "6.1", "6.1(back)", "6.1(front)",
    "7.0", "7.0(front)", "7.1", "7.1(wide)", "7.1(wide-side)", "hexagonal", "octagonal",
})  # fmt: skip

VIDEO_CODECS: dict[str, VideoCodec] = {
    row.name: row
    for row in (
        VideoCodec("h264", never_zero=True, parser="h264_metadata", ten_bit_for_hdr_only=True),
        VideoCodec("hevc", never_zero=True, parser="hevc_metadata", has_hidden_packets=True),
        VideoCodec("vp8", never_zero=True, has_hidden_packets=True, carries_hdr=False),
        VideoCodec("vp9", never_zero=True, parser="vp9_metadata", has_hidden_packets=True),
        VideoCodec("av1", never_zero=True, parser="av1_metadata"),
        VideoCodec("mpeg4", never_zero=True, has_hidden_packets=True),
        VideoCodec("h263", never_zero=True),
        VideoCodec("flv1", never_zero=True),
    )
}
AUDIO_CODECS: dict[str, AudioCodec] = {
    row.name: row
    for row in (
        AudioCodec(
            "aac", "aac", {1: 96, 2: 160, 6: 384, 8: 512}, layouts=_AAC_LAYOUTS,
            layout_filter="aformat=channel_layouts=7.1|6.1|5.1(side)|5.1|5.0|quad|3.1|3.0|stereo|mono",
        ),
        AudioCodec(
            "opus", "libopus", {1: 64, 2: 128, 6: 256, 8: 384}, kbps_max_a_channel=256,
            layout_filter="aformat=channel_layouts=7.1|6.1|5.1|5.0|quad|stereo|mono",
            downmixes_many=True, priming_s_max=65_535 / 48_000,
        ),
        # ffmpeg before 6 treats FLAC in MP4 as experimental, although it is standardized.
        AudioCodec("flac", copy_options=("-strict", "-2")),
    )
}  # fmt: skip
TEXT_SUBTITLES: dict[str, TextSubtitles] = {
    row.name: row
    for row in (
        TextSubtitles("subrip", encoder="srt"),
        TextSubtitles("mov_text", encoder="mov_text"),
        TextSubtitles("webvtt", encoder="webvtt"),
        TextSubtitles("text"),
        TextSubtitles("ass", is_styled=True),
        TextSubtitles("ssa", is_styled=True),
    )
}
COVERS: dict[str, Cover] = {
    row.codec: row
    for row in (Cover("mjpeg", "jpg", "image/jpeg"), Cover("png", "png", "image/png"))
}


def video_codec(name: str) -> VideoCodec:
    """Return what is known of a video codec."""
    return VIDEO_CODECS.get(name) or VideoCodec(name)


def audio_codec(name: str) -> AudioCodec:
    """Return what is known of an audio codec."""
    return AUDIO_CODECS.get(name) or AudioCodec(name)
