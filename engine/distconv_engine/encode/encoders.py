"""List ffmpeg's encoders for each codec, and how each takes its settings.

What a job may ask of a codec, and its defaults, are in the shared table `distconvd.model.CODECS`,
by which the daemon validates submissions. A row here translates its words into those of one
encoder, so nothing from a job reaches ffmpeg unless both tables contain it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distconvd.model import CODECS


@dataclass(frozen=True, slots=True)
class Encoder:
    """One encoder of ffmpeg.

    `preset_option` and `tune_option` are the options that take a preset and a tune; `presets` maps
    the codec's words to the encoder's own. `quality_option` takes the constant quality.
    """

    name: str
    codec: str
    quality_option: str
    quality_default: int
    quality: range
    """The values of a job's `crf` that it takes unchanged; empty: its scale is another one."""
    preset_option: str
    preset_default: str
    presets: Mapping[str, str]
    extra: tuple[str, ...] = ()
    quality_extra: tuple[str, ...] = ()
    """Options that accompany constant quality only."""
    tune_option: str | None = None
    two_pass: bool = False
    ten_bit: bool = False
    hardware: bool = False
    input_options: tuple[str, ...] = ()
    filter_tail: str | None = None
    """Last filter of the chain: moves frames to the device."""
    min_side: int = 16
    max_size: tuple[int, int] = (65_534, 65_534)
    """The largest width and height; hardware says itself what is too large for it."""
    bits_a_pixel_max: float | None = None
    """The encoder needs a maximum bit rate even with constant quality; None: it does not."""
    takes_pass_as_parameter: bool = False
    """Whether it takes the number of a pass only in the last word of `extra`."""


def spread(codec: str, own: Sequence[str]) -> dict[str, str]:
    """Map the presets of a codec evenly to an encoder's own; both lists begin with the fastest."""
    words = CODECS[codec].presets
    step = (len(own) - 1) / (len(words) - 1)
    return {word: own[round(number * step)] for number, word in enumerate(words)}


def _software(
    name: str,
    codec: str,
    preset_option: str = "-preset",
    *,
    presets: Mapping[str, str] | None = None,
    preset_default: str | None = None,
    extra: tuple[str, ...] = (),
    quality_extra: tuple[str, ...] = (),
    tune_option: str | None = None,
    ten_bit: bool = True,
    min_side: int = 16,
    max_size: tuple[int, int] = (65_534, 65_534),
    bits_a_pixel_max: float | None = None,
    takes_pass_as_parameter: bool = False,
) -> Encoder:
    """Return the row of an encoder that supports everything in its codec's row."""
    rules = CODECS[codec]
    return Encoder(
        name,
        codec,
        "-crf",
        rules.crf_default,
        rules.crf,
        preset_option,
        preset_default or rules.preset_default,
        presets or {word: word for word in rules.presets},
        extra,
        quality_extra,
        tune_option,
        two_pass=rules.two_pass,
        ten_bit=ten_bit,
        min_side=min_side,
        max_size=max_size,
        bits_a_pixel_max=bits_a_pixel_max,
        takes_pass_as_parameter=takes_pass_as_parameter,
    )


_SOFTWARE = (
    _software("libx264", "h264", tune_option="-tune", max_size=(16_384, 16_384)),
    _software(
        "libx265", "hevc", extra=("-x265-params", "log-level=warning"), tune_option="-tune",
        min_side=64, takes_pass_as_parameter=True,
    ),
    _software(
        "libvpx", "vp8", "-cpu-used", extra=("-deadline", "good"), tune_option="-tune",
        ten_bit=False, max_size=(16_382, 16_382), bits_a_pixel_max=0.12,
    ),
    _software(
        "libvpx-vp9", "vp9", "-cpu-used", extra=("-deadline", "good", "-row-mt", "1"),
        quality_extra=("-b:v", "0"), tune_option="-tune-content",
    ),
    _software("libsvtav1", "av1", min_side=64, max_size=(16_384, 8_704)),
    _software(
        "libaom-av1", "av1", "-cpu-used",
        # Outside of its real-time mode it has no 9 to 13; 8 is its fastest.
        presets={word: str(min(int(word), 8)) for word in CODECS["av1"].presets},
        preset_default="6", extra=("-row-mt", "1"), quality_extra=("-b:v", "0"),
    ),
)  # fmt: skip

_NVENC_PRESETS = tuple(f"p{number}" for number in range(1, 8))
_QSV_PRESETS = ("veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_VAAPI_LEVELS = tuple(str(number) for number in range(7, 0, -1))


def _nvenc(codec: str) -> Encoder:
    return Encoder(
        f"{codec}_nvenc", codec, "-cq", 25, range(1, 52), "-preset", "p5",
        spread(codec, _NVENC_PRESETS),
        quality_extra=("-rc", "vbr", "-b:v", "0"), hardware=True, min_side=160,
        ten_bit=codec != "h264",
    )  # fmt: skip


def _qsv(codec: str) -> Encoder:
    return Encoder(
        f"{codec}_qsv", codec, "-global_quality", 25, range(1, 52), "-preset", "medium",
        spread(codec, _QSV_PRESETS), hardware=True, min_side=128, ten_bit=codec != "h264",
    )  # fmt: skip


def _vaapi(codec: str) -> Encoder:
    return Encoder(
        f"{codec}_vaapi", codec, "-qp", 25, range(1, 52), "-compression_level", "4",
        spread(codec, _VAAPI_LEVELS), hardware=True, min_side=128,
        input_options=("-vaapi_device", "/dev/dri/renderD128"),
        filter_tail="format=nv12,hwupload",
    )  # fmt: skip


def _videotoolbox(codec: str) -> Encoder:
    return Encoder(
        f"{codec}_videotoolbox", codec, "-q:v", 60, range(0), "-realtime", "0",
        spread(codec, ("1", "0")), hardware=True, min_side=64,
    )  # fmt: skip


_HARDWARE = (
    *(_nvenc(codec) for codec in ("h264", "hevc", "av1")),
    *(_qsv(codec) for codec in ("h264", "hevc", "vp9", "av1")),
    *(_vaapi(codec) for codec in ("h264", "hevc", "vp9", "av1")),
    *(_videotoolbox(codec) for codec in ("h264", "hevc")),
)

ENCODERS: dict[str, Encoder] = {row.name: row for row in (*_HARDWARE, *_SOFTWARE)}
"""All supported encoders, the preferred ones of a codec first."""


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
