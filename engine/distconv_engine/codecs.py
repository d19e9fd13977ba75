"""The codec table: which encoders make a codec, and their settings where a job names none.

One row an encoder. Every value that a job may give is checked against its row here, so nothing
that a job says reaches ffmpeg unless this table knows it.
"""

from dataclasses import dataclass

_X26X_PRESETS = frozenset(
    {
        "ultrafast", "superfast", "veryfast", "faster", "fast",
        "medium", "slow", "slower", "veryslow", "placebo",
    }
)  # fmt: skip
_COMMON_TUNES = frozenset({"animation", "grain", "fastdecode", "zerolatency", "psnr", "ssim"})


@dataclass(frozen=True, slots=True)
class Encoder:
    """One encoder of ffmpeg.

    `preset_option` and `tune_option` are the options that take a preset and a tune; `presets` and
    `tunes` all the values allowed. `quality_option` takes the constant quality, within `quality`.
    """

    name: str
    codec: str
    quality_option: str
    quality_default: int
    quality: range
    preset_option: str
    preset_default: str
    presets: frozenset[str]
    extra: tuple[str, ...] = ()
    quality_extra: tuple[str, ...] = ()
    """Goes with constant quality only."""
    tune_option: str | None = None
    tunes: frozenset[str] = frozenset()
    two_pass: bool = False
    ten_bit: bool = False
    hardware: bool = False
    input_options: tuple[str, ...] = ()
    filter_tail: str | None = None
    """Last filter of the chain: moves frames to the device."""
    min_side: int = 16


def _numbers(first: int, last: int) -> frozenset[str]:
    return frozenset(str(number) for number in range(first, last + 1))


_SOFTWARE = (
    Encoder(
        "libx264", "h264", "-crf", 21, range(52),
        "-preset", "medium", _X26X_PRESETS,
        tune_option="-tune",
        tunes=_COMMON_TUNES | {"film", "stillimage"},
        two_pass=True, ten_bit=True,
    ),
    Encoder(
        "libx265", "hevc", "-crf", 25, range(52),
        "-preset", "medium", _X26X_PRESETS,
        extra=("-x265-params", "log-level=warning"),
        tune_option="-tune", tunes=_COMMON_TUNES,
        two_pass=True, ten_bit=True, min_side=64,
    ),
    Encoder(
        "libvpx", "vp8", "-crf", 10, range(4, 64),
        "-cpu-used", "2", _numbers(0, 16), extra=("-deadline", "good"),
        tune_option="-tune", tunes=frozenset({"psnr", "ssim"}), two_pass=True,
    ),
    Encoder(
        "libvpx-vp9", "vp9", "-crf", 32, range(64),
        "-cpu-used", "3", _numbers(0, 8), extra=("-deadline", "good", "-row-mt", "1"),
        quality_extra=("-b:v", "0"),
        tune_option="-tune-content", tunes=frozenset({"default", "screen", "film"}),
        two_pass=True, ten_bit=True,
    ),
    Encoder(
        "libsvtav1", "av1", "-crf", 32, range(1, 64),
        "-preset", "8", _numbers(0, 13), ten_bit=True, min_side=64,
    ),
    Encoder(
        "libaom-av1", "av1", "-crf", 32, range(64),
        "-cpu-used", "6", _numbers(0, 8), extra=("-row-mt", "1"), quality_extra=("-b:v", "0"),
        tune_option="-tune", tunes=frozenset({"psnr", "ssim"}), two_pass=True, ten_bit=True,
    ),
)  # fmt: skip

_NVENC_PRESETS = frozenset(f"p{number}" for number in range(1, 8))
_QSV_PRESETS = frozenset(["veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"])


def _nvenc(codec: str) -> Encoder:
    return Encoder(
        f"{codec}_nvenc", codec, "-cq", 25, range(1, 52), "-preset", "p5", _NVENC_PRESETS,
        quality_extra=("-rc", "vbr", "-b:v", "0"), hardware=True, min_side=160,
        ten_bit=codec != "h264",
    )  # fmt: skip


def _qsv(codec: str) -> Encoder:
    return Encoder(
        f"{codec}_qsv", codec, "-global_quality", 25, range(1, 52), "-preset", "medium",
        _QSV_PRESETS, hardware=True, min_side=128, ten_bit=codec != "h264",
    )  # fmt: skip


def _vaapi(codec: str) -> Encoder:
    return Encoder(
        f"{codec}_vaapi", codec, "-qp", 25, range(1, 52), "-compression_level", "4",
        _numbers(1, 7), hardware=True, min_side=128,
        input_options=("-vaapi_device", "/dev/dri/renderD128"),
        filter_tail="format=nv12,hwupload",
    )  # fmt: skip


def _videotoolbox(codec: str) -> Encoder:
    return Encoder(
        f"{codec}_videotoolbox", codec, "-q:v", 60, range(1, 101), "-realtime", "0",
        frozenset({"0", "1"}), hardware=True, min_side=64,
    )  # fmt: skip


_HARDWARE = (
    *(_nvenc(codec) for codec in ("h264", "hevc", "av1")),
    *(_qsv(codec) for codec in ("h264", "hevc", "vp9", "av1")),
    *(_vaapi(codec) for codec in ("h264", "hevc", "vp9", "av1")),
    *(_videotoolbox(codec) for codec in ("h264", "hevc")),
)

ENCODERS: dict[str, Encoder] = {row.name: row for row in (*_HARDWARE, *_SOFTWARE)}
"""Every encoder known, the preferred ones of a codec first."""
CODECS: tuple[str, ...] = ("h264", "hevc", "vp8", "vp9", "av1")


def encoders_of(codec: str, *, hardware: bool) -> list[Encoder]:
    """Return the encoders of `codec`, best first."""
    rows = [row for row in ENCODERS.values() if row.codec == codec]
    return [row for row in rows if hardware or not row.hardware]


def pixel_filter(encoder: Encoder, *, ten_bit: bool) -> str:
    """Return the last filter of a chain: the pixel format that the encoder takes, on its device."""
    if encoder.filter_tail:
        return encoder.filter_tail.replace("nv12", "p010") if ten_bit else encoder.filter_tail
    if encoder.hardware:
        return "format=p010le" if ten_bit else "format=nv12"
    return "format=yuv420p10le" if ten_bit else "format=yuv420p"
