"""List what a damaged source has lost, for jobs that convert it all the same (`on_damage`).

The losses come from four readers: the container's own lengths, the packets, a decode of the whole
source before the encode, and the times of the output's frames. Each is a sentence with a place, an
amount and, where a reader knows it, a time.
"""

from collections.abc import Iterator
from itertools import islice

from distconv_engine.checks.frame_times import compare
from distconv_engine.failures import InputFault
from distconv_engine.ffmpeg.run import RunResult
from distconv_engine.ffmpeg.stderr import Diagnosis
from distconv_engine.media.frame_times import Timeline
from distconv_engine.media.packets import PacketScan, StreamPackets
from distconv_engine.media.probe import Probe, Stream

LOSSES_MAX = 100
_MESSAGES_MAX = 5
_GAPS_MAX = 20
_COMPARED_MAX = 500
"""Frames by which the shift between two clocks is found."""
_PREFIXES = ("The source is damaged: ", "The source is ", "The source ")


def words_of(fault: InputFault) -> str:
    """Return a fault of the whole file as a loss."""
    for prefix in _PREFIXES:
        if fault.message.startswith(prefix):
            return f"the file: {fault.message.removeprefix(prefix)}"
    return f"the file: {fault.message}"


def packet_losses(found: Probe, scan: PacketScan) -> list[str]:
    """Return what the packets of the source lack; pure."""
    losses = _messages(scan.diagnosis)
    if scan.exit_code:
        losses.append("the file: it cannot be read to its end")
    for stream in found.streams:
        if stream.is_video or stream.kind == "audio":
            losses += _of_stream(stream, scan.of(stream.index))
    return losses


def gap_losses(found: Probe, scan: PacketScan) -> list[str]:
    """Return the gaps in the packets of a source that is damaged: what was there may be lost; pure."""
    return [
        f"{stream.label}: nothing for {gap_s:.2f} s from {at_s:.2f} s on"
        for stream in found.streams
        if stream.is_video or stream.kind == "audio"
        for at_s, gap_s in scan.of(stream.index).gaps[:_GAPS_MAX]
    ]


def decode_losses(found: Probe, scan: PacketScan, result: RunResult) -> tuple[list[str], set[int]]:
    """Return what a decode of the source lost, and the streams of which nothing could be decoded; pure."""
    losses, lost = _messages(result.diagnosis), set[int]()
    for stream in found.streams:
        read = result.diagnosis.read.get(stream.index)
        if read is None or not (stream.is_video or stream.kind == "audio"):
            continue
        packets = scan.of(stream.index)
        errors = max(0, read.errors - packets.before_key)
        if not read.frames:
            lost.add(stream.index)
            losses.append(f"{stream.label}: all of it, since nothing could be decoded")
        elif errors:
            mean_s = packets.total_s / max(1, packets.shown)
            losses.append(
                f"{stream.label}: {_frames(errors)} not decoded ({errors * mean_s:.2f} s)"
            )
    return losses, lost


def frame_losses(label: str, source: Timeline, output: Timeline, start_s: float = 0.0) -> list[str]:
    """Return the frames of the source that the output lacks, in runs, with their times; pure.

    `start_s` is where the source begins, which is the output's zero.
    """
    missing = source.times.count - output.times.count
    if missing <= 0:
        return []
    if compare(source, output, missing=missing, before_key=missing).deviation:
        return [f"{label}: {_frames(missing)}"]
    return [
        f"{label}: {_frames(count)} from {at_s:.2f} s on"
        for at_s, count in _missing_runs(source, output, missing, start_s)
    ][:_GAPS_MAX]


def _missing_runs(
    source: Timeline, output: Timeline, missing: int, start_s: float
) -> Iterator[tuple[float, int]]:
    """Iterate over time and length of each run of frames that are missing."""
    shift_s = _shift_s(source, output, missing, start_s)
    found = _seconds(output)
    slack_s, here = float(output.tick) + 0.001, next(found, None)
    begins_s, count = 0.0, 0
    for at_s in _seconds(source):
        if here is not None and abs(at_s - shift_s - here) <= slack_s:
            here = next(found, None)
            if count:
                yield begins_s, count
            count = 0
            continue
        begins_s = at_s if not count else begins_s
        count += 1
    if count:
        yield begins_s, count


def _shift_s(source: Timeline, output: Timeline, missing: int, start_s: float) -> float:
    """Return by how much the output's clock is earlier: that under which most frames match.

    With a constant rate several may match alike; then it is the one nearest to the source's start.
    """
    there = list(islice(_seconds(source), _COMPARED_MAX + missing))
    here = [round(at_s, 3) for at_s in islice(_seconds(output), _COMPARED_MAX)]
    shifts = [at_s - here[0] for at_s in there[: min(missing, _COMPARED_MAX) + 1]]

    def fit(shift_s: float) -> tuple[int, float]:
        shifted = {round(at_s - shift_s, 3) for at_s in there}
        return sum(at_s in shifted for at_s in here), -abs(shift_s - start_s)

    return max(shifts, key=fit)


def _seconds(timeline: Timeline) -> Iterator[float]:
    tick = float(timeline.tick)
    return (ticks * tick for ticks in timeline.times)


def _of_stream(stream: Stream, packets: StreamPackets) -> list[str]:
    losses: list[str] = []
    if packets.corrupt:
        losses.append(
            f"{stream.label}: {_packets(packets.corrupt)} incomplete{_from(packets.corrupt_s)}"
        )
    if packets.zeroed:
        losses.append(
            f"{stream.label}: {_packets(packets.zeroed)} with blocks of zeros{_from(packets.zeroed_s)}"
        )
    declared = stream.frames_declared or 0
    if packets.count < declared:
        losses.append(f"{stream.label}: {_packets(declared - packets.count)} of {declared} missing")
    return losses


def _from(at_s: float | None) -> str:
    return "" if at_s is None else f", the first at {at_s:.2f} s"


def _messages(diagnosis: Diagnosis) -> list[str]:
    return [f"ffmpeg says: {words}" for words in dict.fromkeys(diagnosis.damage)][:_MESSAGES_MAX]


def _packets(count: int) -> str:
    return "1 packet" if count == 1 else f"{count} packets"


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"
