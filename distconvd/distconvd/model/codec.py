"""Define the video codecs: one canonical name for each, and what a job may ask of it.

`CODECS` is the one table of defaults and ranges: the daemon refuses at submission what is outside
it, the engine builds its encoders from it, and docs/protocol.md shows it. A codec that is not in
the table may be known to some engine; nothing is checked about it here.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from distconvd.model.container import ContainerName

AudioCodecName = Literal["aac", "opus"]
AUDIO_CODECS: tuple[AudioCodecName, ...] = get_args(AudioCodecName)
"""The audio codecs that a job may ask for."""
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
"""What people and encoders call a codec, to the canonical name that matching compares."""


def canonical_codec(name: str) -> str:
    """Return the canonical name of a codec; an unknown name is only put in lower case."""
    lowered = name.lower()
    return CODEC_ALIASES.get(lowered, lowered)


@dataclass(frozen=True, slots=True)
class Codec:
    """What a job may ask of one codec, and what it gets by default.

    Only what every software encoder of the codec can do; a hardware encoder that cannot do it is
    not used for the job.
    """

    name: str
    encoders: tuple[str, ...]
    """The software encoders, as ffmpeg calls them, the preferred one first."""
    containers: tuple[ContainerName, ...]
    """If a job names none: the first that can contain every stream of the source."""
    crf: range
    crf_default: int
    presets: tuple[str, ...]
    """Fastest first."""
    preset_default: str
    tunes: tuple[str, ...] = ()
    two_pass: bool = False
    bitrate_kbps_max: int = 1_000_000


def _numbers(fastest: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(fastest, -1, -1))


_X26X_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast",
    "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip
_X26X_TUNES = ("animation", "grain", "fastdecode", "zerolatency", "psnr", "ssim")

CODECS: dict[str, Codec] = {
    row.name: row
    for row in (
        Codec(
            "h264", ("libx264",), ("mp4", "mkv"), range(52), 21, _X26X_PRESETS, "medium",
            ("film", "stillimage", *_X26X_TUNES), two_pass=True,
        ),
        Codec(
            "hevc", ("libx265",), ("mp4", "mkv"), range(52), 25, _X26X_PRESETS, "medium",
            _X26X_TUNES, two_pass=True,
        ),
        Codec(
            "vp8", ("libvpx",), ("webm", "mkv"), range(4, 64), 10, _numbers(16), "2",
            ("psnr", "ssim"), two_pass=True,
        ),
        Codec(
            "vp9", ("libvpx-vp9",), ("webm", "mkv"), range(64), 32, _numbers(8), "3",
            ("default", "screen", "film"), two_pass=True,
        ),
        Codec(
            "av1", ("libsvtav1", "libaom-av1"), ("mp4", "mkv"), range(1, 64), 32, _numbers(13), "8",
            bitrate_kbps_max=100_000,
        ),
    )
}  # fmt: skip
