"""Names of video codecs: one canonical word for each, whatever a caller writes."""

CODEC_ALIASES: dict[str, str] = {
    "h.264": "h264",
    "h.265": "hevc",
    "h265": "hevc",
    "x265": "hevc",
    "libx265": "hevc",
    "hevc_nvenc": "hevc",
    "hevc_qsv": "hevc",
    "hevc_vaapi": "hevc",
    "hevc_videotoolbox": "hevc",
    "avc": "h264",
    "x264": "h264",
    "libx264": "h264",
    "h264_nvenc": "h264",
    "h264_qsv": "h264",
    "h264_vaapi": "h264",
    "h264_videotoolbox": "h264",
    "libvpx": "vp8",
    "libvpx-vp9": "vp9",
    "vp9_vaapi": "vp9",
    "vp9_qsv": "vp9",
    "libsvtav1": "av1",
    "libaom-av1": "av1",
    "librav1e": "av1",
    "svt-av1": "av1",
    "av1_nvenc": "av1",
    "av1_qsv": "av1",
    "av1_vaapi": "av1",
}
"""What people and encoders call a codec, to the word that matching compares."""


def canonical_codec(name: str) -> str:
    """Return the canonical word for `name`; an unknown name is its own lower-case word."""
    lowered = name.lower()
    return CODEC_ALIASES.get(lowered, lowered)
