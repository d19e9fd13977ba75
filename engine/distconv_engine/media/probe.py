"""Parse ffprobe's JSON into typed values: a file's own description, not yet verified."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import msgspec

from distconv_engine.failures import InputFault
from distconv_engine.ffmpeg.codecs import VideoCodec, video_codec
from distconv_engine.ffmpeg.demuxers import Demuxer, demuxer_of
from distconv_engine.ffmpeg.run import RunResult

_PROBE_BYTES_MAX = 16_000_000
PROBE_OPTIONS = (
    *("-hide_banner", "-loglevel", "repeat+level+error"),
    *("-show_format", "-show_streams", "-show_chapters", "-of", "json=compact=1"),
)
"""ffprobe's options for what `parse_probe` reads."""
_NOT_SUPPORTED = re.compile(r"^\[([^ ]+) @ \w+\] \[error\] Format not on whitelist", re.MULTILINE)
_ALPHA = re.compile(r"^(yuva|gbrap|ayuv|uyva|vuya|ya8|ya16|yaf|rgba|bgra|argb|abgr)")
"""How the names of pixel formats with an alpha channel begin."""
_FPS_MAX = 1000
"""A higher rate is no rate but the tick of a clock."""
_WORD = re.compile(r"^[a-z0-9][a-z0-9._+-]*$")
_MOMENT = re.compile(r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?Z?$")
HDR_SIDE_DATA = frozenset({"Mastering display metadata", "Content light level metadata"})
"""What states the brightness of a whole HDR film."""
_WITH_RANGES = ("yuv", "gray", "ya", "nv", "p0")
_TITLE_CHARS = 500
_IAMF = "iamf"
_IAMF_TAG = "0x666d6169"
_DOLBY_VISION_ONLY = (5, 10, 20)
"""Profiles whose pictures have colours of their own (IPTPQc2) where none other is stated."""
_TITLES = ("title", "name", "TITLE", "NAME")
"""Where demuxers put the title of a stream: the third and fourth in Matroska, by other muxers."""
_TECHNICAL_MARKS = frozenset({"attached_pic", "timed_thumbnails", "still_image", "multilayer"})


@dataclass(frozen=True, slots=True)
class Colour:
    """Colour tags, each a word that ffmpeg knows, or None where the file has none."""

    primaries: str | None = None
    transfer: str | None = None
    matrix: str | None = None
    range: str | None = None

    @property
    def is_hdr(self) -> bool:
        """Whether the transfer curve is PQ or HLG."""
        return self.transfer in ("smpte2084", "arib-std-b67")


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of a file."""

    index: int
    kind: str
    """`video`, `audio`, `subtitle`, `data` or `attachment`."""
    codec: str
    language: str | None = None
    codec_tag: str = ""
    """The four letters by which its container names the codec; empty: it has none."""
    title: str | None = None
    marks: frozenset[str] = frozenset()
    """What it is for, by ffmpeg's words for dispositions: `default`, `forced`, `comment` …"""
    handler: str | None = None
    """The name of its handler, where mp4 files without a title often have one."""
    side_data: frozenset[str] = frozenset()
    """ffmpeg's names of what accompanies the pictures, such as the HDR data of the whole film."""
    dolby_vision_only: int | None = None
    """The profile of Dolby Vision, if other players would show its pictures in wrong colours."""
    is_iamf: bool = False
    """Whether it is a part of immersive sound, which only all parts together and a renderer make."""
    is_cover: bool = False
    width: int = 0
    height: int = 0
    rotation: int = 0
    """Degrees by which a player turns the picture."""
    pix_fmt: str | None = None
    has_alpha: bool = False
    fps: float | None = None
    has_variable_rate: bool = False
    """Whether its frames are not all equally long, as far as the description tells."""
    time_base: Fraction | None = None
    """The tick of its clock, in seconds."""
    field_order: str | None = None
    colour: Colour = Colour()
    channels: int = 0
    has_layout: bool = True
    """Whether the file says which channel is for which loudspeaker."""
    layout: str | None = None
    """ffmpeg's name of the channel layout."""
    sample_rate: int = 0
    has_extradata: bool = True
    """Whether the decoder's parameters are known before the first packet."""
    duration_s: float | None = None
    frames_declared: int | None = None

    @property
    def is_video(self) -> bool:
        """Whether it is moving pictures, which a cover is not."""
        return self.kind == "video" and not self.is_cover

    @property
    def is_full_range(self) -> bool:
        """Whether its levels go from 0 to 255, as a camera's may; RGB has no other levels."""
        return self.colour.range == "pc" and (self.pix_fmt or "").startswith(_WITH_RANGES)

    @property
    def is_interlaced(self) -> bool:
        """Whether a frame contains two fields of different moments."""
        return self.field_order in ("tt", "bb", "tb", "bt")

    @property
    def bit_depth(self) -> int:
        """Bits of one sample, from the pixel format's name."""
        match = re.search(r"p0?(9|10|12|14|16)(?:le|be)?$", self.pix_fmt or "")
        return int(match[1]) if match else 8

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height once the rotation is applied."""
        turned = self.rotation % 180 != 0
        return (self.height, self.width) if turned else (self.width, self.height)

    @property
    def is_adts(self) -> bool:
        """Whether it is AAC with its parameters in each packet, as in TS, and nowhere else."""
        return self.codec == "aac" and not self.has_extradata

    @property
    def video_codec(self) -> VideoCodec:
        """What is known of its codec, for a video stream."""
        return video_codec(self.codec)

    @property
    def label(self) -> str:
        """Its name in messages."""
        what = "cover" if self.is_cover else self.kind
        language = f", {self.language}" if self.language else ""
        codec = self.codec
        if codec in ("unknown", "none") and self.codec_tag:
            codec = f"unknown codec '{self.codec_tag}'"
        return f"{what} #{self.index} ({codec}{language})"


@dataclass(frozen=True, slots=True)
class Probe:
    """What ffprobe says of a file."""

    format: str
    """ffmpeg's name for the demuxer, such as `mov,mp4,m4a,3gp,3g2,mj2`."""
    duration_s: float | None
    start_s: float
    streams: tuple[Stream, ...]
    chapters: int = 0
    is_packed: bool = False
    """Whether it has tracks that ffprobe cannot decompress."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the file says about itself (title, place, camera …), by names in lower case."""
    has_frame_data: bool = False
    """Whether the streams' side data include those of the first picture, where TS has them."""

    @property
    def created(self) -> str | None:
        """When it was recorded, if the file says so in the usual form."""
        moment = self.tags.get("creation_time", "")
        return moment if _MOMENT.match(moment) else None

    @property
    def demuxer(self) -> Demuxer:
        """The demuxer that reads it, and how far it can be believed."""
        return demuxer_of(self.format)

    @property
    def main_video(self) -> Stream | None:
        """The first video stream that is not a cover."""
        return next((stream for stream in self.streams if stream.is_video), None)

    def of_kind(self, kind: str) -> list[Stream]:
        """All streams of a kind, without covers."""
        return [s for s in self.streams if s.kind == kind and not s.is_cover]


class _RawSideData(msgspec.Struct):
    side_data_type: str = ""
    rotation: float | None = None
    dv_profile: int | None = None
    dv_bl_signal_compatibility_id: int | None = None


class _RawFrame(msgspec.Struct):
    side_data_list: list[_RawSideData] = []


class _RawFrames(msgspec.Struct):
    frames: list[_RawFrame] = []


class _RawStream(msgspec.Struct):
    index: int
    codec_type: str = "data"
    codec_name: str = "unknown"
    codec_tag: str = ""
    codec_tag_string: str = ""
    width: int = 0
    height: int = 0
    pix_fmt: str | None = None
    avg_frame_rate: str | None = None
    r_frame_rate: str | None = None
    time_base: str | None = None
    field_order: str | None = None
    color_primaries: str | None = None
    color_transfer: str | None = None
    color_space: str | None = None
    color_range: str | None = None
    channels: int = 0
    channel_layout: str | None = None
    sample_rate: str | None = None
    extradata_size: int = 0
    duration: str | None = None
    nb_frames: str | None = None
    disposition: dict[str, int] = {}
    tags: dict[str, str] = {}
    side_data_list: list[_RawSideData] = []


class _RawFormat(msgspec.Struct):
    format_name: str = ""
    duration: str | None = None
    start_time: str | None = None
    tags: dict[str, str] = {}


class _RawProbe(msgspec.Struct):
    format: _RawFormat = msgspec.field(default_factory=_RawFormat)
    streams: list[_RawStream] = []
    chapters: list[dict[str, object]] = []


class BoundedOutput:
    """What ffprobe printed, up to a bound: more than that is no description of a film."""

    def __init__(self) -> None:
        self.content = bytearray()

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        if len(self.content) < _PROBE_BYTES_MAX:
            self.content.extend(piece)


def probe_of(url: str, result: RunResult, output: bytes | bytearray) -> Probe:
    """Return what ffprobe found of `url`; raises `InputFault` when it could not read it."""
    if found := _NOT_SUPPORTED.search(result.diagnosis.tail):
        raise InputFault(
            f"The source has the format '{found[1]}', which is not supported: it may refer to other "
            "files, or damage in it cannot be detected. Convert it to Matroska first."
        )
    if result.code != 0:
        reason = (
            result.diagnosis.last_words.removeprefix("[error] ").removeprefix(f"{url}: ")
            or f"exit {result.code}"
        )
        raise InputFault(
            f"The source is not a readable media file: {reason}",
            log_tail=result.diagnosis.tail,
        )
    return parse_probe(bytes(output))


def parse_probe(raw: bytes) -> Probe:
    """Turn ffprobe's JSON into a `Probe`; raises `InputFault` if it is malformed."""
    try:
        text = raw.decode("utf-8", "replace")
        found = msgspec.json.decode(text, type=_RawProbe)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputFault(f"ffprobe's description of the source is malformed: {error}") from error
    tags = {name.lower(): value for name, value in found.format.tags.items()}
    is_iamf = _IAMF in tags.get("compatible_brands", "")
    return Probe(
        format=found.format.format_name,
        duration_s=_seconds(found.format.duration),
        start_s=_seconds(found.format.start_time) or 0.0,
        streams=tuple(_stream(raw_stream, is_iamf=is_iamf) for raw_stream in found.streams),
        chapters=len(found.chapters),
        tags=tags,
    )


def frame_options() -> tuple[str, ...]:
    """Return ffprobe's options for what `with_frame_data` reads: the first picture's side data."""
    return (
        *(
            "-hide_banner",
            "-loglevel",
            "error",
            "-select_streams",
            "V:0",
            "-read_intervals",
            "%+#1",
        ),
        *(
            "-show_frames",
            "-show_entries",
            "frame=pts:frame_side_data_list",
            "-of",
            "json=compact=1",
        ),
    )


def with_frame_data(found: Probe, raw: bytes) -> Probe:
    """Return `found` with the side data of its first picture; unchanged if there is no such picture."""
    try:
        text = raw.decode("utf-8", "replace")
        frames = msgspec.json.decode(text, type=_RawFrames).frames
    except (msgspec.DecodeError, msgspec.ValidationError):
        frames = []
    video = found.main_video
    if not frames or video is None:
        return found
    data = frozenset(data.side_data_type for data in frames[0].side_data_list)
    streams = [
        replace(stream, side_data=stream.side_data | data) if stream is video else stream
        for stream in found.streams
    ]
    return replace(found, streams=tuple(streams), has_frame_data=True)


def _dolby_vision_only(raw: _RawStream) -> int | None:
    """Return the profile, if no other format's colours are stated to be compatible."""
    found = (data for data in raw.side_data_list if data.dv_bl_signal_compatibility_id == 0)
    return next((d.dv_profile for d in found if d.dv_profile in _DOLBY_VISION_ONLY), None)


def _stream(raw: _RawStream, *, is_iamf: bool) -> Stream:
    cover = bool(raw.disposition.get("attached_pic") or raw.disposition.get("timed_thumbnails"))
    return Stream(
        index=raw.index,
        kind=raw.codec_type,
        codec=raw.codec_name,
        codec_tag="" if raw.codec_tag_string.startswith("[") else raw.codec_tag_string[:4],
        language=_language(raw.tags),
        title=_title(raw.tags),
        marks=frozenset(word for word, is_set in raw.disposition.items() if is_set)
        - _TECHNICAL_MARKS,
        handler=raw.tags.get("handler_name"),
        side_data=frozenset(found.side_data_type for found in raw.side_data_list),
        dolby_vision_only=_dolby_vision_only(raw),
        # ffprobe divides the one track of such sound into its parts, which have no tag of their own.
        is_iamf=is_iamf and raw.codec_type == "audio" and raw.codec_tag in ("0x0000", _IAMF_TAG),
        is_cover=cover,
        width=raw.width,
        height=raw.height,
        rotation=round(next((s.rotation for s in raw.side_data_list if s.rotation), 0)),
        pix_fmt=raw.pix_fmt,
        # VP8 and VP9 store alpha outside of the pictures, so only the container's tag shows it.
        has_alpha=raw.tags.get("alpha_mode") == "1" or bool(_ALPHA.match(raw.pix_fmt or "")),
        fps=_rate(raw.avg_frame_rate) or _rate(raw.r_frame_rate),
        has_variable_rate=_differ(_rate(raw.avg_frame_rate), _rate(raw.r_frame_rate)),
        time_base=_fraction(raw.time_base),
        field_order=raw.field_order,
        colour=Colour(
            _word(raw.color_primaries),
            _word(raw.color_transfer),
            _word(raw.color_space),
            _word(raw.color_range),
        ),
        channels=raw.channels,
        has_layout=raw.channel_layout not in (None, "", "unknown"),
        layout=raw.channel_layout,
        sample_rate=int(_seconds(raw.sample_rate) or 0),
        has_extradata=raw.extradata_size > 0,
        duration_s=_seconds(raw.duration) or _clock(raw.tags),
        frames_declared=_count(raw.nb_frames),
    )


def _language(tags: dict[str, str]) -> str | None:
    language = tags.get("language") or tags.get("LANGUAGE")
    return language if language and language != "und" else None


def _title(tags: dict[str, str]) -> str | None:
    """Return the title, without characters that no player shows."""
    found = next((tags[name] for name in _TITLES if name in tags), "")
    return "".join(char for char in found[:_TITLE_CHARS] if char.isprintable()).strip() or None


def _word(text: str | None) -> str | None:
    """Return `text` if it is a plain word: it becomes an argument, which no file may choose."""
    return text if text and text not in ("unknown", "reserved") and _WORD.match(text) else None


def _seconds(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _differ(average: float | None, usual: float | None) -> bool:
    """Whether a film has another rate on average than the one of which each frame is a multiple."""
    if average is None or usual is None:
        return False
    return abs(average - usual) > usual / 100


def _rate(text: str | None) -> float | None:
    rate = _fraction(text)
    return float(rate) if rate and rate <= _FPS_MAX else None


def _fraction(text: str | None) -> Fraction | None:
    """Return a number above 0 such as `30000/1001`."""
    try:
        found = Fraction(text) if text else None
    except (ValueError, ZeroDivisionError):
        return None
    return found if found and found > 0 else None


def _clock(tags: dict[str, str]) -> float | None:
    """Return Matroska's duration of a stream, from a tag such as `00:00:02.002000000`."""
    text = next((tags[name] for name in tags if name.upper().startswith("DURATION")), "")
    match = re.match(r"^(\d+):(\d\d):(\d\d(?:\.\d+)?)$", text)
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None
