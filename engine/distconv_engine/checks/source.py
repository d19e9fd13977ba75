"""Check that a source is whole before hours are spent on it, without trusting its header.

Each check catches what the others miss. `registry.MEASURES` says what each is for; docs/verification.md
also says what none can see (`source_sha256` in the job catches that, too). The checks are here, but for:

- the container's own bytes, and a second file in them: `media.structure`,
- every packet: `media.packets`, and blocks of zeros in them: `media.zero_runs`,
- whether all of it decodes: the encode, and `output` for what was copied.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from distconv_engine.checks.damage import (
    LOSSES_MAX,
    decode_losses,
    gap_losses,
    packet_losses,
    words_of,
)
from distconv_engine.checks.needs import check_needs
from distconv_engine.checks.registry import Check, Note
from distconv_engine.failures import InputFault, NoAccess, Unusable
from distconv_engine.ffmpeg.inputs import file_url
from distconv_engine.media.evidence import before_first_key, weigh_scan
from distconv_engine.media.ffmpeg import Decoder, Ffmpeg
from distconv_engine.media.frame_times import Timeline, timeline
from distconv_engine.media.packets import Edit, PacketScan, StreamPackets
from distconv_engine.media.probe import Probe, Stream
from distconv_engine.media.structure.check import check_structure, check_structure_of, is_long_chain
from distconv_engine.media.structure.concatenated import check_tail
from distconv_engine.media.structure.facts import STATED, Structure
from distconv_engine.media.structure.ts_continuity import is_continuous
from distconv_engine.media.zero_runs import find_zero_runs
from distconv_engine.tasks import open_tasks
from distconv_engine.transfer.range_reader import NotStreamable, RangeReader
from distconvd.model import Capability

SHORT_S = 0.3
"""A stated duration may exceed that of the packets by this much: muxers round, often upwards."""
SHORT_SHARE = 0.005
_FLAGGED_MIN = 10
"""With fewer packets it is no pattern that most of them are flagged as corrupt."""
_UNKNOWN_CODECS = frozenset({"unknown", "none"})
_MESSAGES = {"bad-chapter": Note.BAD_CHAPTER, "attachment": Note.LOST_ATTACHMENT}
"""What is worth a note, of the kinds of messages that concern neither picture nor sound."""


@dataclass(frozen=True, slots=True)
class FileState:
    """The properties of a source that must not change while it is read."""

    size_bytes: int
    modified_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class CheckedSource:
    """A source that has passed the checks."""

    path: Path | None
    """None: it is streamed, and not stored here."""
    state: FileState
    probe: Probe
    scan: PacketScan
    checks: tuple[Check, ...]
    remote_url: str = ""
    notes: tuple[Note, ...] = ()
    damage: tuple[str, ...] = ()
    """What it has lost, if the job asks to convert it all the same."""
    empty: tuple[Stream, ...] = ()
    """Streams that it announces and that have no packets; `probe` does not have them."""

    @property
    def url(self) -> str:
        """The URL from which ffmpeg reads it."""
        return file_url(self.path) if self.path else self.remote_url

    @property
    def edits(self) -> dict[int, Edit]:
        """Where edit lists hide audio, by stream."""
        return {index: edit for index, found in self.scan.streams.items() if (edit := found.edit)}

    @property
    def before_first_key(self) -> dict[int, int]:
        """How many packets come before the first key frame, by stream of pictures."""
        return before_first_key(self.probe, self.scan)

    @property
    def timeline(self) -> Timeline | None:
        """When the frames of the main video are shown; None: it has none, or does not say so."""
        video = self.probe.main_video
        return timeline(self.scan.of(video.index).times, video.time_base) if video else None

    @property
    def duration_s(self) -> float:
        """The duration of its packets, for progress."""
        spans = (stream.span_s for stream in self.scan.streams.values())
        return max(spans, default=0.0)


def file_state(path: Path) -> FileState:
    """Return the current state; raises `NoAccess` when this engine cannot read the file."""
    try:
        found = path.stat()
    except OSError as error:
        raise NoAccess(f"The source cannot be read: {error.strerror}: {path.name}") from error
    return FileState(found.st_size, found.st_mtime_ns, found.st_ino)


def check_unchanged(path: Path, before: FileState) -> None:
    """Raise `InputFault` when the source has changed since `check_source` read it."""
    now = file_state(path)
    if now.size_bytes != before.size_bytes:
        raise InputFault(
            f"The source changed while it was read: from {before.size_bytes} to "
            f"{now.size_bytes} bytes."
        )
    if now != before:
        raise InputFault("The source was written to or replaced while it was read.")


async def check_source(
    ffmpeg: Ffmpeg, path: Path, lacking: frozenset[Capability] = frozenset()
) -> CheckedSource:
    """Check all of `path`; raises `InputFault` with what was found when it is not whole, and
    `Incapable` if it needs one of the capabilities that are `lacking`."""
    state = file_state(path)
    if not os.access(path, os.R_OK):
        raise NoAccess(f"The source cannot be read: permission denied: {path.name}")
    url = file_url(path)
    async with open_tasks() as tasks:
        found_structure = tasks.start(lambda: trio.to_thread.run_sync(check_structure, path))
        contents = await ffmpeg.maybe_contents(url)
    structure = found_structure.value
    found = contents.probe if contents else await ffmpeg.probe(url)
    check_needs(found, lacking)
    never_zero = never_zero_streams(found)
    zero_runs = await trio.to_thread.run_sync(find_zero_runs, path) if never_zero else None
    scanner = await ffmpeg.for_stored_packets(url, found)
    if contents and not zero_runs and scanner is ffmpeg:
        scan = contents.scan
    else:
        scan = await scanner.scan(url, zero_runs=zero_runs, zero_streams=never_zero)
    stored = await _stored_packets(scanner, url, found, scan)
    if _states_wrong_lengths(found, scan):
        continuous = await trio.to_thread.run_sync(_is_continuous, path)
        structure = replace(structure, is_continuous=continuous)
    check_source_packets(found, scan, structure, stored)
    check_end_of_source(found, scan, state.size_bytes)
    await trio.to_thread.run_sync(_check_tail, path, scan.end_byte)
    return _checked(CheckedSource(path, state, found, scan, _passed(structure)), structure)


async def check_damaged(
    ffmpeg: Ffmpeg, path: Path, lacking: frozenset[Capability] = frozenset()
) -> CheckedSource:
    """Check `path` like `check_source`, but list what it has lost instead of refusing it.

    All of it is decoded, so that the plan and the result know what cannot be. A source without any
    damage is as `check_source` returns it.

    Raises:
        InputFault: it is empty, no media file, or nothing of it can be decoded.
    """
    state = file_state(path)
    if not os.access(path, os.R_OK) or not state.size_bytes:
        return await check_source(ffmpeg, path, lacking)  # which says what is wrong
    losses: list[str] = []
    try:
        whole = await check_source(ffmpeg, path, lacking)
    except Unusable:
        raise
    except InputFault as fault:
        losses.append(words_of(fault))
        whole = await _read_damaged(ffmpeg, path, state)
        losses += packet_losses(whole.probe, whole.scan)
    result = await ffmpeg.decode(
        file_url(path), Decoder(ffmpeg.tools.ffmpeg), duration_s=whole.duration_s
    )
    more, lost = decode_losses(whole.probe, whole.scan, result)
    losses += more
    if not losses:
        return whole
    losses += gap_losses(whole.probe, whole.scan)
    if short := _lacks_s(whole.probe, whole.scan):
        stated, longest = short
        losses.append(f"the end: {stated - longest:.2f} s from {longest:.2f} s on")
    streams = tuple(stream for stream in whole.probe.streams if stream.index not in lost)
    if not any(_is_av(stream) and whole.scan.of(stream.index).count for stream in streams):
        raise InputFault(f"Nothing of the source can be decoded: {losses[0]}.")
    return replace(
        whole,
        probe=replace(whole.probe, streams=streams),
        checks=(),
        damage=tuple(dict.fromkeys(losses))[:LOSSES_MAX],
    )


async def _read_damaged(ffmpeg: Ffmpeg, path: Path, state: FileState) -> CheckedSource:
    """Probe and scan a source that has not passed, whatever it lacks."""
    url = file_url(path)
    found = await ffmpeg.probe(url)
    never_zero = never_zero_streams(found)
    zero_runs = await trio.to_thread.run_sync(find_zero_runs, path) if never_zero else None
    scanner = await ffmpeg.for_stored_packets(url, found)
    scan = await scanner.scan(url, zero_runs=zero_runs, zero_streams=never_zero)
    return _checked(CheckedSource(path, state, found, scan, ()), STATED)


async def check_remote(
    ffmpeg: Ffmpeg,
    reader: RangeReader,
    url: str,
    *,
    sha256: str | None,
    on_progress: Callable[[float], None],
    lacking: frozenset[Capability] = frozenset(),
) -> CheckedSource:
    """Check all of a remote source, as `check_source` checks a local one, without storing it.

    It is read twice: once raw, for zeroed blocks and the digest, and once by ffprobe.

    Args:
        ffmpeg: the ffprobe to use.
        reader: an open reader of the source.
        url: the loopback proxy's URL of the source, for ffprobe.
        sha256: the digest that the job states, if any.
        on_progress: is called with the fraction read, 0 to 1.
        lacking: the capabilities that the engine lacks.

    Raises:
        Incapable: it needs one of them.
        NotStreamable: it has to be fetched to be checked.
    """
    structure = await trio.to_thread.run_sync(_remote_structure, reader)
    found = await ffmpeg.probe(url)
    check_needs(found, lacking)
    never_zero = never_zero_streams(found)
    zero_runs, digest = await reader.read_whole(on_progress)
    if sha256 is not None and digest != sha256.lower():
        raise InputFault(f"The source has SHA-256 {digest}, but the job expects {sha256.lower()}.")
    scanner = await ffmpeg.for_stored_packets(url, found)
    scan = await scanner.scan(url, zero_runs=zero_runs, zero_streams=never_zero)
    stored = await _stored_packets(scanner, url, found, scan)
    check_source_packets(found, scan, structure, stored)
    check_end_of_source(found, scan, reader.size_bytes)
    await trio.to_thread.run_sync(_check_remote_tail, reader, scan.end_byte)
    state = FileState(reader.size_bytes, 0, 0)
    return _checked(CheckedSource(None, state, found, scan, _passed(structure), url), structure)


def _checked(source: CheckedSource, structure: Structure) -> CheckedSource:
    """Add what there is to know of a source that has passed."""
    found, scan = source.probe, source.scan
    empty = tuple(s for s in found.streams if _is_av(s) and not scan.of(s.index).count)
    streams = tuple(stream for stream in found.streams if stream not in empty)
    notes = {
        Note.TRAILING_BYTES: structure.trailer_at is not None,
        Note.UNSET_LENGTH: structure.unset_length,
        Note.EMPTY_STREAM: bool(empty),
        Note.BEGINS_MID_GROUP: bool(source.before_first_key),
        Note.REPEATED_PICTURES: any(scan.of(s.index).empty for s in streams if s.is_video),
        Note.PACKET_LENGTHS: structure.is_continuous,
        Note.HEADER_DURATION: not structure.unset_length and _lacks_s(found, scan) is not None,
    }
    notes |= {_MESSAGES[kind]: True for kind in _MESSAGES if kind in scan.diagnosis.unconcerned}
    that_hold = tuple(note for note in Note if notes.get(note))
    return replace(source, probe=replace(found, streams=streams), notes=that_hold, empty=empty)


def _is_av(stream: Stream) -> bool:
    return stream.is_video or stream.kind == "audio"


def _passed(structure: Structure) -> tuple[Check, ...]:
    """Return the checks of a source that is whole."""
    complete = (Check.CONTAINER_COMPLETE,) if structure.states_length else ()
    return (*complete, Check.PACKETS_WHOLE, Check.HEADER_MATCHES_PACKETS)


def _remote_structure(reader: RangeReader) -> Structure:
    with reader.as_file() as file:
        if is_long_chain(file.read(16)):
            raise NotStreamable("checking an AVI, WAV, WMV or MXF file takes too many requests")
        file.seek(0)
        return check_structure_of(file, reader.size_bytes)


def _check_tail(path: Path, last: int) -> None:
    with path.open("rb") as file:
        check_tail(file, last)


def _check_remote_tail(reader: RangeReader, last: int) -> None:
    with reader.as_file() as file:
        check_tail(file, last)


def never_zero_streams(found: Probe) -> list[int]:
    """Return the streams in which a run of zeros is damage; none if packets have no known place.

    Raises:
        InputFault: there is neither video nor audio.
    """
    if not any(stream.kind in ("video", "audio") for stream in found.streams):
        raise Unusable("The source has neither video nor audio.")
    main = found.main_video
    if main is not None and main.codec in _UNKNOWN_CODECS:
        tag = f" '{main.codec_tag}'" if main.codec_tag else ""
        raise Unusable(f"No decoder is known for the codec{tag} of video #{main.index}.")
    if not found.demuxer.places_packets:
        return []
    return [stream.index for stream in found.streams if stream.video_codec.never_zero]


async def _stored_packets(ffmpeg: Ffmpeg, url: str, found: Probe, scan: PacketScan) -> PacketScan:
    """Return the scan of all packets that the file has, also of those that no reader sees.

    An edit list of several parts hides what is between them, but the header counts it.
    """
    if not found.demuxer.hides_packets:
        return scan
    lacking = any(_lacks_frames(found, stream, scan.of(stream.index)) for stream in found.streams)
    return await ffmpeg.scan(url, ignores_edits=True) if lacking else scan


def check_source_packets(
    found: Probe,
    scan: PacketScan,
    structure: Structure = STATED,
    stored: PacketScan | None = None,
) -> None:
    """Compare what the header says with the packets; pure. Raises `InputFault`.

    `stored` has all the packets of the file, if an edit list hides some from `scan`.
    """
    if scan.diagnosis.damage:
        raise InputFault(
            f"The source is cut or damaged{_concatenated(scan)}: {scan.diagnosis.damage[0]}",
            log_tail=scan.diagnosis.tail,
        )
    if scan.exit_code != 0:
        raise InputFault("The source cannot be read to the end.", log_tail=scan.diagnosis.tail)
    weigh_scan(found, scan)
    streams = [stream for stream in found.streams if _is_av(stream)]
    for stream in streams:
        _check_stream(found, stream, scan, structure)
        _check_frame_count(found, stream, stored or scan)
    _check_unflagged(scan, structure)
    if streams and not any(scan.of(stream.index).count for stream in streams):
        raise _empty(streams[0])
    _check_duration(found, scan, structure)


def check_end_of_source(found: Probe, scan: PacketScan, size: int) -> None:
    """Refuse an incomplete last packet, where the demuxer drops it silently; pure."""
    if found.demuxer.ends_with_packet and scan.end_byte < size:
        raise InputFault(
            f"The source is cut: its last packet, at byte {scan.end_byte}, is incomplete "
            f"({size - scan.end_byte} bytes)."
        )


def _check_unflagged(scan: PacketScan, structure: Structure) -> None:
    """Believe what an old ffprobe says of corrupt packets, since it cannot say which they are.

    A recording whose lengths are not set or wrong throughout is judged by the rest of what was found.
    """
    doubt = scan.diagnosis.doubts.get("corrupt-packet")
    if doubt is None or scan.can_flag_corrupt:
        return
    if not structure.unset_length and "packet-length" not in scan.diagnosis.doubts:
        raise InputFault(
            f"The source is cut or damaged: {doubt.words}", log_tail=scan.diagnosis.tail
        )


def _states_wrong_lengths(found: Probe, scan: PacketScan) -> bool:
    """Whether all looks like a multiplexer that states wrong lengths from the first packet to the last."""
    flagged = any(_is_flagged_throughout(scan.of(stream.index)) for stream in found.streams)
    return flagged and "packet-length" in scan.diagnosis.doubts


def _is_flagged_throughout(packets: StreamPackets) -> bool:
    return packets.count >= _FLAGGED_MIN and packets.corrupt * 2 > packets.count


def _is_continuous(path: Path) -> bool:
    with path.open("rb") as file:
        return is_continuous(file, os.fstat(file.fileno()).st_size)


def _empty(stream: Stream) -> InputFault:
    return InputFault(f"The source is cut or empty: {stream.label} has no data.")


def _check_stream(found: Probe, stream: Stream, scan: PacketScan, structure: Structure) -> None:
    packets = scan.of(stream.index)
    if packets.count == 0:
        if stream.frames_declared:
            raise _empty(stream)
        return  # it is announced, but no packet of it
    ends_unset = structure.unset_length and packets.corrupt_end_byte == scan.end_byte
    flagged_falsely = structure.is_continuous and _is_flagged_throughout(packets)
    if (
        packets.corrupt > ends_unset and not flagged_falsely
    ):  # where no length is set, the last packet is just shorter
        raise InputFault(
            f"The source is damaged{_concatenated(scan)}: ffmpeg found {_packets(packets.corrupt)} of "
            f"{stream.label} corrupt."
        )
    if packets.zeroed:
        raise InputFault(
            f"The source has holes: {_packets(packets.zeroed)} of {stream.label} with blocks of "
            "zero bytes, as an unfinished download leaves them."
        )
    if packets.back and not found.demuxer.restarts_clock:
        raise InputFault(
            f"The source contains two recordings: the clock of {stream.label} goes back "
            f"{_clock(packets.back)}. Convert each separately."
        )


def _check_frame_count(found: Probe, stream: Stream, stored: PacketScan) -> None:
    packets = stored.of(stream.index)
    if _lacks_frames(found, stream, packets):
        raise InputFault(
            f"The source is cut or damaged: {stream.label} should have {stream.frames_declared} frames,"
            f" but has {packets.count}."
        )


def _lacks_frames(found: Probe, stream: Stream, packets: StreamPackets) -> bool:
    """Whether a video stream has fewer packets than the header declares."""
    declared = stream.frames_declared
    if declared is None or not stream.is_video or not found.demuxer.counts_frames:
        return False
    return packets.count < declared - 1 - declared * SHORT_SHARE


def _concatenated(scan: PacketScan) -> str:
    back = next((stream.back for stream in scan.streams.values() if stream.back), None)
    return "" if back is None else f", or concatenated (its clock goes back {_clock(back)})"


def _packets(count: int) -> str:
    return f"{count} packet" if count == 1 else f"{count} packets"


def _clock(back: tuple[float, float]) -> str:
    return f"from {back[0]:.2f} s to {back[1]:.2f} s"


def _check_duration(found: Probe, scan: PacketScan, structure: Structure) -> None:
    lacking = None if structure.unset_length else _lacks_s(found, scan)
    if lacking is None or _is_all_there(found, scan, structure):
        return
    stated, longest = lacking
    raise InputFault(
        f"The source is cut: its header says {stated:.2f} s, its data ends at {longest:.2f} s."
    )


def _lacks_s(found: Probe, scan: PacketScan) -> tuple[float, float] | None:
    """Return the stated duration and the end of the data, if the data ends earlier."""
    end_s = scan.end_s
    stated = found.duration_s
    if stated is None or end_s is None or not found.demuxer.states_duration:
        return None
    if any(stream.jumps for stream in scan.streams.values()):
        return None  # the header's duration is of another clock
    longest = max(end_s, end_s - found.start_s)  # headers count from 0 or from the first packet
    if found.demuxer.adds_start:
        longest += _latest_start_s(found, scan)
    return (stated, longest) if longest < stated - max(SHORT_S, stated * SHORT_SHARE) else None


def _is_all_there(found: Probe, scan: PacketScan, structure: Structure) -> bool:
    """Whether other facts show that nothing is missing, so that a duration is only a guess."""
    demuxer = found.demuxer
    if demuxer.counts_frames:  # its index lists each packet; fragments list none
        streams = [stream for stream in found.streams if _is_av(stream)]
        return all((s.frames_declared or 0) <= scan.of(s.index).count for s in streams) and any(
            stream.frames_declared for stream in streams
        )
    return demuxer.counts_bytes and structure.states_length


def _latest_start_s(found: Probe, scan: PacketScan) -> float:
    """Return how much later than the first stream of picture or sound the last one begins."""
    starts = [scan.of(s.index).first_s for s in found.streams if _is_av(s)]
    known = [start for start in starts if start is not None]
    return max(known, default=0.0) - min(known, default=0.0)
