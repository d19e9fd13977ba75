"""Turn a plan into ffmpeg's argument list; pure, so that it can be tested as a table.

No text from a job or a file becomes an argument: every argument is from this module or the codec
and container tables, a number, or a word that the tables or `probe` have accepted. The titles of streams
are the one exception: bounded, printable, and only behind `title=` or `handler_name=`, as the value of `-metadata`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from distconv_engine.encode.encoders import Encoder, pixel_filter
from distconv_engine.encode.plan import OutputStream, Plan
from distconv_engine.failures import EngineFault, InputFault, Lacking
from distconv_engine.ffmpeg.codecs import (
    COVERS,
    TEXT_SUBTITLES,
    AudioCodec,
    audio_codec,
    video_codec,
)
from distconv_engine.ffmpeg.inputs import read_arguments
from distconv_engine.ffmpeg.stderr import LOG_LEVEL
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.media.probe import Stream
from distconvd.model import TranscodeOptions, find_fault

STATS_PERIOD_S = 0.5
PASS_LOG = "two-pass"  # noqa: S105 - no password
"""Name of the first pass's statistics, in the attempt's own folder, where ffmpeg runs."""
_ONE_AFTER_ANOTHER = r"setpts=if(isnan(PREV_OUTPTS)\,PTS\,max(PTS\,PREV_OUTPTS+1))"
"""A filter: no frame is shown at the time of the one before it, which encoders do not accept."""
_BITRATE_MIN = 100_000
_LIMITED = {"tv": "tv"}
_BRANDS = ("major_brand", "minor_version", "compatible_brands", "encoder")
"""Tags that say how the source's container was written."""


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that determines the command."""

    tools: Tools
    source: str
    """From `ffmpeg.inputs`: a `file:` name or an http(s) URL."""
    plan: Plan
    options: TranscodeOptions
    encoder: Encoder
    output: str
    """From `ffmpeg.inputs.file_url`."""
    reader: str | None = None
    """An ffmpeg that can decode the encoder's codec, if there is one."""
    is_damaged: bool = False
    """The source is known to be damaged, and to be converted all the same."""
    streaming: bool = False
    """The output is uploaded while it is encoded, so no part of it can be rewritten later."""
    tee_fd: int | None = None
    """The descriptor of a pipe that also gets video and audio; `output` is then a name in the folder
    where ffmpeg runs, without any character that has a meaning to the tee muxer."""


def check_request(request: Request) -> None:
    """Raise the `JobFailure` of a request that this encoder, or every encoder, cannot do."""
    if request.plan.video is not None:
        check_options(request.options, request.encoder)
        check_size(request)
        check_depth(request)


def check_size(request: Request) -> None:
    """Raise `InputFault` for a picture that the encoder cannot encode in its size."""
    video = request.plan.video
    assert video is not None
    size = target_size(video.stream, request.options, request.encoder)
    for name, length, most in zip(("width", "height"), size, request.encoder.max_size, strict=True):
        if length > most:
            raise InputFault(
                f"{video.stream.label} is {size[0]}x{size[1]} pixels, but {request.encoder.name} encodes "
                f"a {name} of at most {most}: set options.max_{name} to {most} or less."
            )


def check_options(options: TranscodeOptions, encoder: Encoder) -> None:
    """Raise `InputFault` for options that cannot work, `EngineFault` for options that only this
    encoder cannot do: hardware may then fall back to software."""
    fault = find_fault(options, encoder.codec)
    if fault is not None:
        raise InputFault(str(fault))
    cannot = {
        "crf": options.crf is not None and options.crf not in encoder.quality,
        "tune": options.tune is not None and encoder.tune_option is None,
        "two_pass": bool(options.two_pass) and not encoder.two_pass,
    }
    beyond = [f"options.{name}" for name, is_beyond in cannot.items() if is_beyond]
    if beyond:
        raise EngineFault(f"{encoder.name} does not support this job's {', '.join(beyond)}.")


def check_depth(request: Request) -> None:
    """Raise `Lacking` for HDR that this encoder would reduce to 8 bits."""
    video, encoder = request.plan.video, request.encoder
    if video is None or not video.stream.colour.is_hdr or request.options.on_unsupported == "drop":
        return
    if video.stream.bit_depth > 8 and not is_ten_bit(video.stream, encoder):
        raise Lacking(
            f"This engine's {encoder.name} encodes with 8 bits only, too few for the HDR of "
            f"{video.stream.label}."
        )


def commands(request: Request) -> list[list[str]]:
    """Return the argument lists to run in sequence: one, or two for two passes."""
    check_request(request)
    if request.options.two_pass and request.plan.video is not None:
        return [_first_pass(request), _last_pass(request, 2)]
    return [_last_pass(request, None)]


def cover_commands(request: Request) -> list[list[str]]:
    """Return the commands that extract each cover to be attached from the source into a file."""
    return [
        [
            *(request.tools.ffmpeg, "-hide_banner", "-nostdin", "-y", "-loglevel", LOG_LEVEL),
            *read_arguments(request.source),
            *("-map", f"0:{stream_out.stream.index}", "-c", "copy", "-frames:v", "1"),
            *("-f", "rawvideo", f"file:{_cover_file(request.plan, stream_out)}"),
        ]
        for stream_out in request.plan.attached_covers
    ]


def target_size(stream: Stream, options: TranscodeOptions, encoder: Encoder) -> tuple[int, int]:
    """Return the output's size in pixels: even, within the maxima, never larger than the source."""
    width, height = stream.shown_size
    ratio = min(
        1.0,
        (options.max_width or width) / max(1, width),
        (options.max_height or height) / max(1, height),
    )
    return _even(width * ratio, encoder.min_side), _even(height * ratio, encoder.min_side)


def is_ten_bit(stream: Stream, encoder: Encoder) -> bool:
    """Whether to encode with 10 bits: HDR needs them, but most H.264 players lack support."""
    if not encoder.ten_bit or stream.bit_depth <= 8:
        return False
    return stream.colour.is_hdr or not video_codec(encoder.codec).ten_bit_for_hdr_only


def _even(length: float, least: int) -> int:
    return max(least if length < least else 2, int(length + 1e-6) // 2 * 2)


def _head(request: Request) -> list[str]:
    argv = [request.tools.ffmpeg, "-hide_banner", "-nostdin", "-y", "-loglevel", LOG_LEVEL]
    argv += ["-progress", "pipe:1", "-stats_period", str(STATS_PERIOD_S), "-nostats"]
    if request.is_damaged:
        argv += ["-max_error_rate", "1"]  # its result lists what could not be decoded
    return [*argv, *request.encoder.input_options, *read_arguments(request.source)]


def _first_pass(request: Request) -> list[str]:
    video = request.plan.video
    assert video is not None
    argv = _head(request)
    argv += ["-map", f"0:{video.stream.index}", *_video(request, video, "v", 1)]
    return [*argv, "-f", "null", "-"]


def _last_pass(request: Request, pass_number: int | None) -> list[str]:
    plan, container = request.plan, request.plan.container
    argv = _head(request)
    attached = plan.attached_covers
    for stream_out in plan.output_streams:
        argv += [] if stream_out in attached else ["-map", f"0:{stream_out.stream.index}"]
    argv += ["-map_metadata", "0", "-map_chapters", "0" if plan.keep_chapters else "-1"]
    for number, stream_out in enumerate(plan.output_streams):
        argv += _stream(request, stream_out, number, pass_number)
        argv += _description(plan, stream_out, number)
    argv += _tags(plan)
    argv += ["-max_muxing_queue_size", "9999"]
    if request.tee_fd is not None:
        return [*argv, *_tee(request, request.tee_fd)]
    movflags = _movflags(request)
    argv += ["-movflags", movflags] if movflags else []
    return [*argv, "-f", container.muxer, request.output]


def _movflags(request: Request) -> str | None:
    """Decide where the index goes: first, last, or, for a streaming upload, into each fragment."""
    flags = request.plan.container.family.index_flags
    if flags is None:
        return None
    if request.streaming:
        return flags.fragmented + _free_tags(request.plan)
    first = "" if request.options.faststart is False else flags.first
    return first + _free_tags(request.plan) or None


def _free_tags(plan: Plan) -> str:
    return plan.container.family.free_tags if plan.has_free_tags else ""


def _tags(plan: Plan) -> list[str]:
    """Set what ffmpeg would lose, or write a second time, of the tags of the whole file."""
    argv = [] if plan.created is None else ["-metadata", f"creation_time={plan.created}"]
    if _free_tags(plan):  # else the source's brands would become tags
        argv += [part for name in _BRANDS for part in ("-metadata", f"{name}=")]
    return argv


def _description(plan: Plan, stream_out: OutputStream, number: int) -> list[str]:
    """State the stream's marks and title; left alone, ffmpeg makes the first of a kind a default."""
    stream, argv = stream_out.stream, list[str]()
    if stream.kind not in ("video", "audio", "subtitle") or stream.is_cover:
        return argv
    if plan.states_marks or stream.marks:
        argv += [f"-disposition:{number}", "+".join(sorted(stream.marks)) or "0"]
    if stream.title is not None:
        argv += [f"-metadata:s:{number}", f"title={stream.title}"]
        if plan.container.family.titles_as_handlers:
            argv += [f"-metadata:s:{number}", f"handler_name={stream.title}"]
    return argv


def _adapted(request: Request, stream_out: OutputStream, number: int) -> list[str]:
    """Give copied audio the tag and time base that its muxer would set if the tee were not there."""
    if stream_out.stream.kind != "audio":
        return []
    container = request.plan.container
    tag = container.audio_tags.get(stream_out.codec)
    argv = [] if tag is None else [f"-tag:{number}", tag]
    if container.family.audio_clock_is_rate:
        argv += [f"-time_base:{number}", f"1/{stream_out.stream.sample_rate}"]
    return argv


def _unpacked(request: Request, stream_out: OutputStream, number: int) -> list[str]:
    """Remove AAC's ADTS headers: some muxers do that too late for an index that comes first."""
    needed = stream_out.stream.is_adts and not request.plan.container.family.copies_adts
    return [f"-bsf:{number}", "aac_adtstoasc"] if needed else []


def _tee(request: Request, tee_fd: int) -> list[str]:
    """Write each packet to the output and, if it is video or audio, to the pipe `tee_fd`.

    The pipe comes first, so that it ends before the output's index is written.
    """
    container = request.plan.container
    piped = [f"f={container.muxer}", r"select=\'V,a\'", "onfail=ignore"]
    if container.family.index_flags is not None:
        piped += container.family.index_flags.teed
    movflags = _movflags(request)
    written = [f"f={container.muxer}", *([f"movflags={movflags}"] if movflags else [])]
    slaves = f"[{':'.join(piped)}]pipe:{tee_fd}|[{':'.join(written)}]{request.output}"
    # All these containers need it. ffmpeg asks the muxer, which is now the tee, so it is set here.
    return ["-flags", "+global_header", "-f", "tee", slaves]


def _stream(
    request: Request, stream_out: OutputStream, number: int, pass_number: int | None
) -> list[str]:
    stream = stream_out.stream
    if stream_out.action == "copy":
        if stream_out in request.plan.attached_covers:
            return _attached(request, stream_out, number)
        cover = [f"-disposition:{number}", "attached_pic"] if stream.is_cover else []
        options = audio_codec(stream.codec).copy_options if stream.kind == "audio" else ()
        adapted = _adapted(request, stream_out, number) if request.tee_fd is not None else []
        adapted += _unpacked(request, stream_out, number)
        return [f"-c:{number}", "copy", *cover, *options, *adapted]
    if stream.kind == "video":
        return _video(request, stream_out, str(number), pass_number)
    if stream.kind == "audio":
        return _audio(request, stream_out, number)
    encoder = TEXT_SUBTITLES[stream_out.codec].encoder
    assert encoder is not None, stream_out.codec
    return [f"-c:{number}", encoder]


def _attached(request: Request, stream_out: OutputStream, number: int) -> list[str]:
    name = _cover_file(request.plan, stream_out)
    return [
        *("-attach", f"file:{name}"),
        *(f"-metadata:s:{number}", f"mimetype={COVERS[stream_out.codec].mime}"),
        *(f"-metadata:s:{number}", f"filename={name}"),
    ]


def _cover_file(plan: Plan, stream_out: OutputStream) -> str:
    """Return the cover's name in the folder where ffmpeg runs; players look for `cover`."""
    place = plan.attached_covers.index(stream_out)
    return f"cover{f'-{place + 1}' if place else ''}.{COVERS[stream_out.codec].suffix}"


def _video(
    request: Request, stream_out: OutputStream, spec: str, pass_number: int | None
) -> list[str]:
    encoder, options, stream = request.encoder, request.options, stream_out.stream
    argv = [f"-c:{spec}", encoder.name]
    argv += [f"-filter:{spec}", ",".join(_filters(request, stream))]
    argv += [*_clock(request, spec), *_rate(request, stream)]
    preset = encoder.preset_default if options.preset is None else encoder.presets[options.preset]
    argv += [encoder.preset_option, preset]
    if options.tune is not None and encoder.tune_option:
        argv += [encoder.tune_option, options.tune]
    argv += _extra(encoder, pass_number)
    argv += _colour(stream)
    tag = request.plan.container.family.video_tags.get(encoder.codec)
    return argv if tag is None else [*argv, f"-tag:{spec}", tag]


def _clock(request: Request, spec: str) -> list[str]:
    """Let every frame keep its own time, to the tick of the source, unless a rate is asked for.

    ffmpeg's default counts in frames of the rate that it has guessed, and drops what does not fit.
    """
    pace = request.plan.pace
    if pace.fps is not None:
        return [f"-fps_mode:{spec}", "vfr"]
    tick = "demux" if request.tools.names_time_bases else "-1"
    if pace.tick is not None:
        tick = _ratio(pace.tick)
    return [f"-fps_mode:{spec}", "passthrough", f"-enc_time_base:{spec}", tick]


def _ratio(number: Fraction) -> str:
    return f"{number.numerator}/{number.denominator}"


def _filters(request: Request, stream: Stream) -> list[str]:
    encoder, options = request.encoder, request.options
    chain: list[str] = []
    if stream.is_interlaced:
        chain.append("bwdif=mode=send_frame:deint=interlaced")
    pace = request.plan.pace
    if pace.fps is not None:
        # `pass` keeps an incomplete last frame; without it a film of one frame would have none.
        chain.append(f"fps={pace.fps:g}:eof_action=pass")
    if pace.tick is not None:
        chain += [f"settb={_ratio(pace.tick)}", _ONE_AFTER_ANOTHER]
    size = target_size(stream, options, encoder)
    scale = [f"{size[0]}:{size[1]}"] if size != stream.shown_size else []
    if stream.is_full_range:  # else ffmpeg before 7 reduces the levels, which stay tagged as full
        scale.append("in_range=full:out_range=full")
    if scale:
        chain.append(f"scale={':'.join(scale)}")
    chain.append(pixel_filter(encoder, ten_bit=is_ten_bit(stream, encoder)))
    return chain


def _rate(request: Request, stream: Stream) -> list[str]:
    encoder, options = request.encoder, request.options
    if options.video_bitrate_kbps is not None:
        return ["-b:v", f"{options.video_bitrate_kbps}k"]
    quality = encoder.quality_default if options.crf is None else options.crf
    argv = [encoder.quality_option, str(quality), *encoder.quality_extra]
    if encoder.bits_a_pixel_max is not None:
        width, height = target_size(stream, options, encoder)
        bits = int(width * height * 30 * encoder.bits_a_pixel_max)
        argv += ["-b:v", str(max(_BITRATE_MIN, bits))]
    return argv


def _extra(encoder: Encoder, pass_number: int | None) -> list[str]:
    if pass_number is None:
        return list(encoder.extra)
    if encoder.takes_pass_as_parameter:
        *others, parameters = encoder.extra
        return [*others, f"{parameters}:pass={pass_number}:stats={PASS_LOG}"]
    return [*encoder.extra, "-pass", str(pass_number), "-passlogfile", PASS_LOG]


def _colour(stream: Stream) -> list[str]:
    colour = stream.colour
    pairs = (
        ("-color_primaries", colour.primaries),
        ("-color_trc", colour.transfer),
        ("-colorspace", colour.matrix if colour.matrix != "gbr" else None),
        (
            "-color_range",
            colour.range if stream.is_full_range else _LIMITED.get(colour.range or ""),
        ),
    )
    return [part for option, value in pairs if value for part in (option, value)]


def _audio(request: Request, stream_out: OutputStream, number: int) -> list[str]:
    codec = audio_codec(stream_out.codec)
    assert codec.encoder is not None, codec.name
    kbps = request.options.audio_bitrate_kbps or _audio_kbps(codec, stream_out.stream.channels)
    _check_audio_bitrate(codec, stream_out.stream, kbps)
    argv = [f"-c:{number}", codec.encoder, f"-b:{number}", f"{kbps}k"]
    chain: list[str] = []
    if stream_out.relabelled is not None:
        places = "|".join(str(place) for place in range(stream_out.stream.channels))
        chain.append(f"channelmap={places}:{stream_out.relabelled}")
    if codec.layouts is None or stream_out.is_downmixed:
        chain.append(codec.layout_filter)
    if chain:
        argv += [f"-filter:{number}", ",".join(chain)]
    elif not stream_out.stream.has_layout:
        # The encoder needs a layout: this sets the usual one for the number of channels.
        argv += [f"-ac:{number}", str(stream_out.stream.channels)]
    return argv


def _check_audio_bitrate(codec: AudioCodec, stream: Stream, kbps: int) -> None:
    each = codec.kbps_max_a_channel
    if each is not None and kbps > each * stream.channels:
        raise InputFault(
            f"'options.audio_bitrate_kbps' must be at most {each * stream.channels} for "
            f"{stream.label} in {codec.name} ({each} for each channel)."
        )


def _audio_kbps(codec: AudioCodec, channels: int) -> int:
    fitting: Sequence[int] = [n for n in sorted(codec.kbps) if n >= channels]
    return codec.kbps[fitting[0] if fitting else max(codec.kbps)]
