"""The losses of a damaged source have a place, an amount and a time. No ffmpeg."""

from fractions import Fraction

import pytest

from distconv_engine.checks.damage import (
    decode_losses,
    frame_losses,
    gap_losses,
    packet_losses,
    words_of,
)
from distconv_engine.failures import InputFault
from distconv_engine.ffmpeg.run import RunResult
from distconv_engine.ffmpeg.stderr import Diagnosis, ReadCount
from distconv_engine.media.frame_times import FrameTimes, Timeline
from distconv_engine.media.packets import PacketScan, StreamPackets
from distconv_engine.media.probe import Probe, Stream

VIDEO = Stream(0, "video", "h264", frames_declared=50)
AUDIO = Stream(1, "audio", "aac")
FOUND = Probe("mov,mp4", 2.0, 0.0, (VIDEO, AUDIO))


def times(*numbers: int) -> Timeline:
    """Frames at 25 a second."""
    found = FrameTimes()
    for number in numbers:
        found.add(number * 40)
    found.close()
    return Timeline(found, Fraction(1, 1000))


def test_missing_frames_are_listed_in_runs_with_their_times() -> None:
    output = times(*range(3, 10), *range(12, 25), *range(26, 50))
    assert frame_losses("video", times(*range(50)), output) == [
        "video: 3 frames from 0.00 s on",
        "video: 2 frames from 0.40 s on",
        "video: 1 frame from 1.00 s on",
    ]


def test_missing_frames_are_found_when_the_output_begins_at_zero() -> None:
    output = times(*range(7), *range(9, 47))
    assert frame_losses("video", times(*range(50)), output)[-1] == "video: 3 frames from 1.88 s on"


def test_no_frame_is_missing_if_all_are_there() -> None:
    assert frame_losses("video", times(*range(50)), times(*range(50))) == []


def test_packets_that_are_missing_incomplete_or_zeroed_are_listed() -> None:
    scan = PacketScan(
        {0: StreamPackets(count=40, corrupt=1, corrupt_s=0.5, zeroed=2, zeroed_s=1.25)}
    )
    assert packet_losses(FOUND, scan) == [
        "video #0 (h264): 1 packet incomplete, the first at 0.50 s",
        "video #0 (h264): 2 packets with blocks of zeros, the first at 1.25 s",
        "video #0 (h264): 10 packets of 50 missing",
    ]


def test_a_gap_is_listed_with_its_time() -> None:
    scan = PacketScan({1: StreamPackets()})
    for time_s in (0.0, 0.02, 0.5):
        scan.streams[1].add(time_s, 0.02, 9, "K__", time_s)
    assert gap_losses(FOUND, scan) == ["audio #1 (aac): nothing for 0.46 s from 0.04 s on"]


@pytest.mark.parametrize("frames,lost", [(48, set()), (0, {1})])
def test_what_a_decoder_gives_up_is_listed(frames: int, lost: set[int]) -> None:
    diagnosis = Diagnosis(read={1: ReadCount("audio", 50, frames, 2)})
    scan = PacketScan({1: StreamPackets(count=50, total_s=1.0)})
    losses, all_lost = decode_losses(FOUND, scan, RunResult(0, diagnosis))
    assert all_lost == lost
    assert losses[0].startswith("audio #1 (aac): all" if lost else "audio #1 (aac): 2 frames not")


def test_a_fault_of_the_file_becomes_a_loss_of_the_file() -> None:
    assert words_of(InputFault("The source is damaged: a box.")) == "the file: a box."
    assert words_of(InputFault("The source is cut: a box.")) == "the file: cut: a box."
