"""Verify that an output is what the job asked for and contains all of the source.

This happens before an output is reported. The chain runs from the source's packets (not its header)
to frames decoded, frames encoded, packets written and frames decoded again from the output. Each
link is counted by another program, so a loss anywhere shows as a difference between two numbers. A
concurrent decode counts for the file only if the file's packets are byte for byte those that were
decoded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import trio

from distconv_engine.checks.damage import frame_losses
from distconv_engine.checks.decode import (
    Decoded,
    check_decoding,
    check_unaltered,
    decode_file,
    decoder_of,
)
from distconv_engine.checks.frame_times import compare
from distconv_engine.checks.lost import find_lost
from distconv_engine.checks.registry import Check
from distconv_engine.checks.source import CheckedSource
from distconv_engine.encode.command import Request, is_ten_bit, target_size
from distconv_engine.encode.pace import Pace
from distconv_engine.encode.plan import OutputStream
from distconv_engine.encode.run import Encoded
from distconv_engine.failures import InputFault, VerificationFault
from distconv_engine.ffmpeg.codecs import audio_codec
from distconv_engine.ffmpeg.inputs import file_url
from distconv_engine.ffmpeg.run import RunResult
from distconv_engine.ffmpeg.stderr import Diagnosis
from distconv_engine.files import fsync_file, hash_file
from distconv_engine.media.ffmpeg import Ffmpeg
from distconv_engine.media.frame_times import Timeline, is_faster, timeline
from distconv_engine.media.packet_hashes import PacketHashes
from distconv_engine.media.packets import PacketScan, StreamPackets
from distconv_engine.media.probe import Probe, Stream
from distconv_engine.tasks import open_tasks

AUDIO_SLACK_S = 0.25
"""Priming and the last frame's padding, of the source's codec and of the output's."""
COPIED_SLIP_S = 0.03
"""How far copied sound may be from where it was, compared with the picture: a packet."""
ENCODED_SLIP_S = 0.1
"""The same of sound that was decoded and encoded: some decoders drop or add a packet."""
VIDEO_SLACK_FRAMES = 2.5
VIDEO_SLACK_S = 0.15
SPAN_SHARE = 0.001
_FRAMES_LACKING = 2
"""Packets of an intact source that may give no frame: a leading picture without its reference."""
_SHAPE = (
    Check.CONTAINER,
    Check.STREAMS,
    Check.CODECS,
    Check.PICTURE_SIZE,
    Check.COLOUR_TAGS,
)


@dataclass(frozen=True, slots=True)
class Verified:
    """What is known of a verified output."""

    size_bytes: int
    sha256: str
    duration_s: float
    video_frames: int | None
    audio_codec: str | None
    width: int | None
    height: int | None
    checks: tuple[Check, ...]
    lost: tuple[str, ...] = ()
    """What it lacks that is neither picture nor sound, in words."""
    damage: tuple[str, ...] = ()
    """The frames of a damaged source that it lacks."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What independent readers of the output found."""

    found: Probe | InputFault
    """What ffprobe says of it, or why it cannot read it."""
    scan: PacketScan
    decoded: RunResult
    sha256: str
    size_bytes: int
    decoded_concurrently: bool = False
    """The frames were decoded during the encode, from exactly the packets that the file has."""


async def read_evidence(
    ffmpeg: Ffmpeg,
    request: Request,
    path: Path,
    concurrent_decode: Decoded | None,
    *,
    duration_s: float,
    on_progress: Callable[[float], None],
) -> Evidence:
    """Read the output at `path` with independent readers, for `check_output`.

    Args:
        ffmpeg: the programs that read it.
        request: what was encoded.
        path: the finished file.
        concurrent_decode: the result of a concurrent decode. Without one, or if the file has other
            packets than were decoded, the file itself is decoded.
        duration_s: of the source, for the progress.
        on_progress: is called with the fraction decoded, 0 to 1.

    Raises:
        VerificationFault: the disk returned other bytes than were written.
    """
    url = file_url(path)
    async with open_tasks() as tasks:
        digest = tasks.start(partial(_digest_of, path))
        found, scan, hashes = await _contents_of(
            ffmpeg, url, with_hashes=concurrent_decode is not None
        )
    is_same = False
    if concurrent_decode:
        check_unaltered(concurrent_decode, request.plan, hashes)
        is_same = concurrent_decode.is_of(request.plan, scan, hashes)
    if concurrent_decode and is_same:
        result = concurrent_decode.result
    else:
        result = await decode_file(
            ffmpeg, decoder_of(request), url, duration_s=duration_s, on_progress=on_progress
        )
    if isinstance(found, Probe):
        found = await ffmpeg.add_frame_data(found, url)
    sha256, size = digest.value
    return Evidence(found, scan, result, sha256, size, decoded_concurrently=is_same)


async def _digest_of(path: Path) -> tuple[str, int]:
    """Return the SHA-256 and size, and make the content durable, which publishing would wait for."""

    def sync_and_hash() -> tuple[str, int]:
        fsync_file(path)
        return hash_file(path)

    # It changes nothing, so a cancelled attempt need not wait for it.
    return await trio.to_thread.run_sync(sync_and_hash, abandon_on_cancel=True)


async def _contents_of(
    ffmpeg: Ffmpeg, url: str, *, with_hashes: bool
) -> tuple[Probe | InputFault, PacketScan, PacketHashes]:
    """Return what ffprobe says of the output, counts in it, and its hashes if they are needed."""
    contents = await ffmpeg.maybe_contents(url, with_hashes=with_hashes)
    if contents:
        return contents
    found, hashes = await probe_output(ffmpeg, url), PacketHashes()
    scan = await ffmpeg.scan(url, hashes=hashes if with_hashes else None)
    return found, scan, hashes


async def probe_output(ffmpeg: Ffmpeg, url: str, *, stdin: int | None = None) -> Probe | InputFault:
    """Ask ffprobe about an output."""
    try:
        return await ffmpeg.probe(url, stdin=stdin)
    except InputFault as fault:
        return fault


def check_output(
    request: Request, source: CheckedSource, encoded: Encoded, evidence: Evidence
) -> Verified:
    """Compare the evidence with plan, source and encode; pure."""
    found, scan, decoded = evidence.found, evidence.scan, evidence.decoded.diagnosis
    if isinstance(found, InputFault):
        raise VerificationFault(f"The output cannot be read: {found.message}") from found
    checks = [*check_shape(request, found)]
    _check_scan(scan)
    check_decoding(request, evidence.decoded)
    tick = found.main_video.time_base if found.main_video else None
    checks += check_counts(request, source, encoded, scan, decoded, tick)
    if evidence.decoded_concurrently:
        checks.append(Check.PACKETS_AS_DECODED)
    video, audio = found.main_video, found.of_kind("audio")
    number = request.plan.video_number
    return Verified(
        size_bytes=evidence.size_bytes,
        sha256=evidence.sha256,
        duration_s=max((s.span_s for s in scan.streams.values()), default=0.0),
        video_frames=_frames_of(decoded, number),
        audio_codec=audio[0].codec if audio else None,
        width=video.width if video else None,
        height=video.height if video else None,
        checks=(*checks, Check.DESCRIPTION),
        lost=find_lost(request.plan, source.probe, found),
        damage=_damage(request, source, scan, tick),
    )


def _damage(
    request: Request, source: CheckedSource, scan: PacketScan, tick: Fraction | None
) -> tuple[str, ...]:
    """Return which frames of a damaged source are missing; pure."""
    video, number = request.plan.video, request.plan.video_number
    if not request.is_damaged or video is None or number is None:
        return ()
    before, after = source.scan.of(video.stream.index), scan.of(number)
    first, second = timeline(before.times, video.stream.time_base), timeline(after.times, tick)
    if request.plan.pace.fps is None and first and second and not first.times.untimed:
        return tuple(frame_losses(video.stream.label, first, second, source.probe.start_s))
    return ()


# ------------------------------------------------------------------------------- shape: by probe


def check_shape(request: Request, found: Probe) -> tuple[Check, ...]:
    """Check container, codecs, streams, size and HDR tags as probed; pure."""
    plan = request.plan
    if plan.container.family.demuxer not in found.format.split(","):
        raise VerificationFault(f"The output is {found.format}, not {plan.container.name}.")
    streams = [stream for stream in found.streams if stream.kind != "data"]  # a chapter track
    wanted = list(plan.output_streams)
    if len(streams) != len(wanted):
        raise VerificationFault(
            f"The output has {_count(len(streams), 'stream')}, not {len(wanted)} as planned."
        )
    for stream_out in wanted:
        _check_stream(request, stream_out, streams)
    if plan.keep_chapters and not found.chapters:
        raise VerificationFault("The output has lost its chapters.")
    return _SHAPE


def _check_stream(request: Request, stream_out: OutputStream, streams: list[Stream]) -> None:
    """Find the stream that `stream_out` became, by its kind."""
    alike = [k for k in request.plan.output_streams if _kind(k.stream) == _kind(stream_out.stream)]
    found = [stream for stream in streams if _kind(stream) == _kind(stream_out.stream)]
    place = alike.index(stream_out)
    if place >= len(found):
        raise VerificationFault(f"The output has lost {stream_out.stream.label}.")
    stream = found[place]
    if stream_out.stream.kind != "attachment" and stream.codec != stream_out.codec:
        raise VerificationFault(
            f"{stream_out.stream.label} became {stream.codec}, not {stream_out.codec} as planned."
        )
    if stream_out.stream.is_video:
        _check_picture(request, stream_out.stream, stream)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _kind(stream: Stream) -> str:
    return "cover" if stream.is_cover else stream.kind


def _check_picture(request: Request, source: Stream, output: Stream) -> None:
    wanted = target_size(source, request.options, request.encoder)
    if (output.width, output.height) != wanted:
        raise VerificationFault(
            f"The picture is {output.width}x{output.height}, not {wanted[0]}x{wanted[1]}."
        )
    if is_ten_bit(source, request.encoder) and output.bit_depth < 10:
        raise VerificationFault(f"The picture has {output.bit_depth} bits, not 10.")
    if source.colour.is_hdr and output.colour.transfer != source.colour.transfer:
        raise VerificationFault(
            f"The output has lost its HDR tag {source.colour.transfer} "
            f"(it has {output.colour.transfer or 'none'})."
        )


# ---------------------------------------------------------------------------- counts: by packets


def check_counts(
    request: Request,
    source: CheckedSource,
    encoded: Encoded,
    output: PacketScan,
    decoded: Diagnosis,
    tick: Fraction | None,
) -> tuple[Check, ...]:
    """Follow each stream from the source's packets to the output's decoded frames; pure.

    `tick` is that of the output's video.
    """
    streams = [
        (number, stream_out, source.scan.of(stream_out.stream.index), output.of(number))
        for number, stream_out in enumerate(request.plan.output_streams)
    ]
    times: Times | None = None
    sizes_known = not source.scan.diagnosis.is_packed
    for number, stream_out, before, after in streams:
        if not sizes_known:
            _check_decompressed(stream_out, before, encoded)
        if stream_out.stream.is_video:
            frames = _check_video(request, stream_out, before, after, encoded, decoded, number)
            times = _check_times(request, stream_out, before, after, tick, frames)
    for _, stream_out, before, after in streams:
        if stream_out.stream.kind == "audio":
            if not request.is_damaged:
                _check_audio(stream_out, before, after, sizes_known=sizes_known)
            if times is not None:
                _check_slip(stream_out, before, after, times)
        elif stream_out.stream.kind == "subtitle" and before.shown and not after.count:
            raise VerificationFault(f"{stream_out.stream.label} is empty in the output.")
    decodes = Check.DECODES if request.reader else Check.PARSES
    compared = (Check.FRAME_TIMES,) if times and times.are_compared else ()
    return (Check.PACKETS_READ, Check.FRAMES, *compared, Check.DURATIONS, decodes)


def _check_video(
    request: Request,
    stream_out: OutputStream,
    before: StreamPackets,
    after: StreamPackets,
    encoded: Encoded,
    decoded: Diagnosis,
    number: int,
) -> int:
    """Compare counts, and return how many frames were encoded."""
    label = stream_out.stream.label
    read = encoded.diagnosis.read.get(stream_out.stream.index)
    written = encoded.diagnosis.written.get(number)
    again = decoded.read.get(number)
    if read is None or written is None or again is None or written.frames is None:
        raise VerificationFault(f"ffmpeg reported no counts for {label}.")
    if read.packets < before.shown and not request.is_damaged:
        raise VerificationFault(
            f"{label}: the source has {_count(before.shown, 'packet')}, but ffmpeg read {read.packets}."
        )
    if not request.is_damaged:
        _check_decoded(stream_out.stream, before, read.frames or 0)
    if request.plan.pace.fps is None:
        lost = encoded.last.drop_frames - encoded.last.dup_frames
        too_many = lost > max(2, before.shown // 100) and not request.is_damaged
        if written.frames != (read.frames or 0) - lost or too_many:
            raise VerificationFault(
                f"{label}: frames decoded: {read.frames}, frames encoded: {written.frames}."
            )
    found = again.frames if request.reader else again.packets
    if found != written.frames:
        raise VerificationFault(
            f"{label}: frames encoded: {written.frames}, frames in the output: {found}."
        )
    return written.frames


@dataclass(frozen=True, slots=True)
class Times:
    """What is known of the times of the video's frames."""

    are_compared: bool
    """Whether each was compared; else only the duration, as the source does not state them."""
    shift_s: float
    """By how much all of the output is later than the source."""
    slack_s: float = 0.0
    """How uncertain that is."""


def _check_times(
    request: Request,
    stream_out: OutputStream,
    before: StreamPackets,
    after: StreamPackets,
    tick: Fraction | None,
    frames: int,
) -> Times | None:
    """Compare the time of each frame, or the duration; None if even the beginning is unknown.

    Of a damaged source nothing is known before it is decoded; its frames are listed as they are.
    """
    if request.is_damaged:
        return None
    label, pace = stream_out.stream.label, request.plan.pace
    source, output = (
        timeline(before.times, stream_out.stream.time_base),
        timeline(after.times, tick),
    )
    if source and output and _are_comparable(pace, source, output, frames):
        missing = source.times.count + source.times.untimed - frames
        found = compare(source, output, missing=missing, before_key=before.before_key)
        if found.deviation is not None:
            raise VerificationFault(f"{label}: {found.deviation}.")
        return Times(are_compared=True, shift_s=found.shift_s)
    fps = pace.fps or stream_out.stream.fps or 25.0
    _check_span(label, before, after, max(VIDEO_SLACK_S, VIDEO_SLACK_FRAMES / fps))
    if pace.fps and output and is_faster(output, pace.fps):
        raise VerificationFault(f"{label}: there are more than {pace.fps:g} frames in a second.")
    if before.first_s is None or after.first_s is None:
        return None
    shift_s = after.first_s - before.first_s
    return Times(are_compared=False, shift_s=shift_s, slack_s=0.5 / fps)


def _are_comparable(pace: Pace, source: Timeline, output: Timeline, frames: int) -> bool:
    """Whether frames keep their times, the source tells them apart, and the output states them all."""
    tells_apart = source.times.alike_max == 1 or pace.tick is not None
    return pace.fps is None and tells_apart and output.times.count == frames


def _check_slip(
    stream_out: OutputStream, before: StreamPackets, after: StreamPackets, times: Times
) -> None:
    """Compare where sound is, relative to the picture. Only if both its ends move, it has slipped:
    priming and what cannot be decoded change one of them."""
    ends = (before.first_s, before.end_s, after.first_s, after.end_s)
    if before.jumps or None in ends:
        return
    first_s = (after.first_s or 0.0) - (before.first_s or 0.0) - times.shift_s
    end_s = (after.end_s or 0.0) - (before.end_s or 0.0) - times.shift_s
    is_exact = stream_out.action == "copy" and times.are_compared
    slack_s = COPIED_SLIP_S if is_exact else ENCODED_SLIP_S + times.slack_s
    if min(first_s, end_s) > slack_s or max(first_s, end_s) < -slack_s:
        slip_s = min(first_s, end_s, key=abs)
        way = "later" if slip_s > 0 else "earlier"
        raise VerificationFault(
            f"{stream_out.stream.label} is {abs(slip_s):.3f} s {way} than in the source, compared with the"
            " picture."
        )


def _check_decoded(stream: Stream, before: StreamPackets, frames: int) -> None:
    """Compare the frames that left the decoder with the packets that entered it."""
    lacking = before.shown - frames
    allowed = _FRAMES_LACKING + before.before_key + before.empty
    if stream.video_codec.has_hidden_packets:
        allowed += before.shown // 4
    if stream.is_interlaced:  # a packet may contain one of the two fields
        allowed += before.shown // 2
    if lacking > allowed or not frames:
        raise InputFault(
            f"The source is damaged: {stream.label} has {_count(before.shown, 'packet')}, but only "
            f"{_count(frames, 'frame')} could be decoded."
        )


def _check_decompressed(stream_out: OutputStream, before: StreamPackets, encoded: Encoded) -> None:
    """Compare the packets as they are stored with those that could be decompressed: ffmpeg skips
    the others without a message."""
    read = encoded.diagnosis.read.get(stream_out.stream.index)
    if read is not None and read.packets < before.shown:
        raise InputFault(
            f"The source is damaged: {stream_out.stream.label} has "
            f"{_count(before.shown, 'compressed packet')}, but only {read.packets} can be decompressed."
        )


def _check_audio(
    stream_out: OutputStream, before: StreamPackets, after: StreamPackets, *, sizes_known: bool
) -> None:
    if stream_out.action == "copy" and stream_out.codec.startswith("pcm_"):
        if sizes_known:
            _check_samples(stream_out, before, after)
    elif stream_out.action == "copy" and abs(after.count - before.count) > before.hidden + 2:
        raise VerificationFault(
            f"{stream_out.stream.label}: {before.count} packets were copied, but the output has "
            f"{after.count}."
        )
    elif (
        stream_out.action == "copy"
        and abs(after.shown - before.shown) > _primed(stream_out, before, after) + 2
    ):
        raise VerificationFault(
            f"{stream_out.stream.label}: players present {before.shown} of the source's packets, "
            f"but {after.shown} of their copies."
        )
    primed_s = _primed_s(stream_out, before, after) if stream_out.action == "copy" else 0.0
    _check_span(stream_out.stream.label, before, after, AUDIO_SLACK_S + primed_s)


def _primed(stream_out: OutputStream, *sides: StreamPackets) -> int:
    """Count the packets that only one side may hide: an encoder's priming before the audio."""
    return sum(side.hidden for side in sides if _hides_priming_only(stream_out, side))


def _primed_s(stream_out: OutputStream, *sides: StreamPackets) -> float:
    """Return how long the priming is that only one side may hide."""
    return sum(side.hidden_s for side in sides if _hides_priming_only(stream_out, side))


def _hides_priming_only(stream_out: OutputStream, side: StreamPackets) -> bool:
    return not side.cut and side.hidden_s <= audio_codec(stream_out.codec).priming_s_max


def _check_samples(stream_out: OutputStream, before: StreamPackets, after: StreamPackets) -> None:
    """Compare bytes, since each muxer splits uncompressed audio into packets in its own way."""
    slack = (before.hidden + 2) * before.total_bytes / max(1, before.count)
    if abs(after.total_bytes - before.total_bytes) > slack:
        raise VerificationFault(
            f"{stream_out.stream.label}: {before.total_bytes} bytes of audio were copied, but the "
            f"output has {after.total_bytes}."
        )


def _check_span(label: str, before: StreamPackets, after: StreamPackets, slack_s: float) -> None:
    """Compare durations; where the source's clock jumps, the sum of its packets' durations."""
    if before.first_s is None:
        return  # an elementary stream without a clock: comparing counts has to suffice
    lead_s = 0.0 if before.key_s is None else max(0.0, before.key_s - before.first_s)
    # What comes before the first key frame may be lacking, and so may repeated pictures at the end.
    # If packets state no duration, that of the last is unknown: it may be the longest one.
    last_s = 0.0 if before.total_s else before.gap_s
    slack = slack_s + SPAN_SHARE * before.span_s + lead_s + last_s
    spans = abs(before.span_s - after.span_s) <= slack
    totals = bool(before.jumps) and abs(before.total_s - after.span_s) <= slack + before.jumps
    if not spans and not totals and before.back:
        raise InputFault(
            f"The source's clock goes back from {before.back[0]:.2f} s to {before.back[1]:.2f} s "
            f"in {label}, and its parts do not add up ({before.total_s:.2f} s, "
            f"{after.span_s:.2f} s in the output): it contains several recordings. Convert each "
            "separately."
        )
    if not spans and not totals:
        raise VerificationFault(
            f"{label}: {before.span_s:.2f} s in the source, {after.span_s:.2f} s in the output."
        )


def _frames_of(decoded: Diagnosis, number: int | None) -> int | None:
    count = decoded.read.get(number) if number is not None else None
    return None if count is None else count.frames or count.packets


# ----------------------------------------------------------------------------------- completeness


def _check_scan(scan: PacketScan) -> None:
    doubts = [doubt.words for doubt in scan.diagnosis.doubts.values()]
    if scan.exit_code != 0 or scan.diagnosis.damage or doubts:
        found = [*scan.diagnosis.damage, *doubts, "it cannot be read to its end"][0]
        raise VerificationFault(f"The output is damaged: {found}", log_tail=scan.diagnosis.tail)
