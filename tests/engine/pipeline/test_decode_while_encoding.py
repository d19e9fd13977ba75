"""Check that a concurrent decode counts for exactly the bytes that were decoded."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.clips import Clips
from tests.engine.conftest import Run, of_one_ffmpeg
from tests.engine.pipeline.corrupt import packet_places

from distconv_engine.attempts.progress_tracker import Tracker
from distconv_engine.checks.decode import Decoded, check_unaltered
from distconv_engine.encode.plan import make_plan
from distconv_engine.failures import EngineFault, VerificationFault
from distconv_engine.ffmpeg.child import ChildLimits
from distconv_engine.ffmpeg.run import Controls, RunResult
from distconv_engine.ffmpeg.stderr import Diagnosis, ReadCount
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.host.capabilities import Capabilities
from distconv_engine.media.packet_hashes import PacketHashes
from distconv_engine.media.packets import PacketScan, StreamPackets
from distconv_engine.media.probe import Probe, Stream
from distconv_engine.pipeline import decode_while_encoding
from distconvd.model import Job

FAST = {"preset": "ultrafast"}
DECODED_CHECK = "packets-as-decoded"


def path_of(report: Any) -> Path:
    return Path(report.output_url.removeprefix("file://"))


def packets_of(tools: Tools, path: Path) -> str:
    """Return streams, times, sizes and hashes of all packets."""
    argv = [tools.ffmpeg, "-v", "error", "-i", str(path), "-map", "0", "-c", "copy", "-copyts"]
    argv += ["-f", "framehash", "-hash", "murmur3", "-"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def program(path: Path, tools: Tools, case: str) -> str:
    """Put a shell's `case` in front of ffmpeg; returns the program's name."""
    path.write_text(f'#!/bin/sh\ncase " $* " in {case} esac\nexec {tools.ffmpeg} "$@"\n')
    path.chmod(0o755)
    return str(path)


def with_decoder(
    folder: Path, tools: Tools, capabilities: Capabilities, failure_kind: str
) -> Capabilities:
    """Return capabilities whose concurrent decoder of H.264 runs `failure_kind` in a shell."""
    reader = program(folder / "reader", tools, f'*" pipe:0 "*) {failure_kind};;')
    readers = (reader, *capabilities.readers["h264"])
    return Capabilities(capabilities.by_codec, {**capabilities.readers, "h264": readers})


def using(ffmpeg: str, tools: Tools, capabilities: Capabilities) -> dict[str, Any]:
    """Return the arguments with which an engine uses that ffmpeg for everything."""
    own = dataclasses.replace(tools, ffmpeg=ffmpeg)
    return {"tools": own, "capabilities": of_one_ffmpeg(capabilities, own)}


@pytest.fixture
def slow_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never stop a decoder for being slow, however busy this machine is."""
    monkeypatch.setattr(decode_while_encoding, "_BLOCKED_S", 60.0)
    monkeypatch.setattr(decode_while_encoding, "_TAIL_S_MIN", 60.0)


CORRUPTING_FFMPEG = """\
#!{python}
import os, sys
argv = sys.argv[1:]
if "tee" in argv:
    argv[argv.index("tee") - 1:argv.index("tee") - 1] = ["-bsf:0", "noise=amount=50"]
os.execv({ffmpeg!r}, [{ffmpeg!r}, *argv])
"""
"""An ffmpeg whose encoder produces corrupt packets."""


# -------------------------------------------------------------------------------- correct encodes


@pytest.mark.e2e
@pytest.mark.usefixtures("slow_decoder")
@pytest.mark.parametrize(
    "name, options",
    [
        ("variable-frame-rate-avi", FAST),
        ("text-subtitles", FAST),
        ("b-frames-open-gop-ts", FAST),
        ("surround", {"container": "mov", **FAST}),
        ("edit-list", {"two_pass": True, "video_bitrate_kbps": 200, **FAST}),
    ],
)
async def test_the_file_has_the_same_packets_and_times_as_without_a_concurrent_decode(
    name: str,
    options: dict[str, Any],
    run_job: Run,
    clips: Clips,
    tools: Tools,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = await run_job(clips.odd(name), "h264", options=options)
    assert {DECODED_CHECK, "decodes"} <= set(one.result.checks)
    monkeypatch.setattr(decode_while_encoding, "can_decode_concurrently", lambda request: False)
    place = str(tmp_path / "other")
    other = await run_job(clips.odd(name), "h264", options=options, job_id="1_2", place=place)
    assert set(one.result.checks) - set(other.result.checks) == {DECODED_CHECK}
    assert packets_of(tools, path_of(one)) == packets_of(tools, path_of(other))


@pytest.mark.e2e
@pytest.mark.parametrize(
    "name, options",
    [
        ("chapters", {}),
        ("text-subtitles", {"container": "ts", "on_unsupported": "drop"}),
        ("wav", {}),
        ("vp9-mp4", {"container": "mkv"}),  # the tee muxer does not take MP4's tag of Opus
        ("b-frames-open-gop-ts", {"container": "mkv"}),  # the audio's parameters come too late
    ],
)
async def test_what_cannot_be_decoded_during_its_encode_is_decoded_afterwards(
    name: str, options: dict[str, Any], run_job: Run, clips: Clips
) -> None:
    report = await run_job(clips.odd(name), "h264", options={**FAST, **options})
    assert "decodes" in report.result.checks
    assert DECODED_CHECK not in report.result.checks


# ----------------------------------------------------------------------------------------- failures


def one_bit(whole: bytes, place: int, size: int) -> bytes:
    at = place + size // 2
    return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]


def torn(whole: bytes, place: int, size: int) -> bytes:
    return whole[:place]


def lost(whole: bytes, place: int, size: int) -> bytes:
    return whole[:place] + bytes(size) + whole[place + size :]


@pytest.mark.e2e
@pytest.mark.usefixtures("slow_decoder")
@pytest.mark.parametrize("kind", ["v", "a"])
@pytest.mark.parametrize("corrupt", [one_bit, torn, lost])
async def test_whatever_changes_on_the_disk_after_the_encode_is_detected(
    corrupt: Callable[[bytes, int, int], bytes],
    kind: str,
    run_job: Run,
    clips: Clips,
    tools: Tools,
    tmp_path: Path,
) -> None:
    class Meddler(Tracker):
        def phase(self, name: str) -> None:
            super().phase(name)
            if name == "verify":
                (output,) = (tmp_path / "work").rglob("output.mp4")
                places = packet_places(tools, output, kind)
                place, size = places[len(places) // 2]
                output.write_bytes(corrupt(output.read_bytes(), place, size))

    with pytest.raises(VerificationFault):
        await run_job(clips.plain(), "h264", options=FAST, tracker=Meddler())
    assert not (tmp_path / "out").exists()


@pytest.mark.e2e
async def test_an_output_whose_packets_do_not_decode_fails_verification(
    run_job: Run, clips: Clips, tools: Tools, capabilities: Capabilities, tmp_path: Path
) -> None:
    # The same corrupted packets go into the file and to the decoder.
    path = tmp_path / "ffmpeg"
    path.write_text(CORRUPTING_FFMPEG.format(python=sys.executable, ffmpeg=tools.ffmpeg))
    path.chmod(0o755)
    with pytest.raises(VerificationFault, match=r"The output (is damaged|does not decode)"):
        await run_job(clips.plain(), "h264", options=FAST, **using(str(path), tools, capabilities))
    assert not (tmp_path / "out").exists()


@pytest.mark.e2e
@pytest.mark.parametrize("failure_kind", ["exit 1", "exec cat >/dev/null", "exec sleep 600"])
async def test_a_decoder_that_fails_during_the_encode_costs_no_more_than_decoding_afterwards(
    failure_kind: str,
    run_job: Run,
    clips: Clips,
    tools: Tools,
    capabilities: Capabilities,
    tmp_path: Path,
) -> None:
    own = with_decoder(tmp_path, tools, capabilities, failure_kind)
    report = await run_job(clips.plain(), "h264", options=FAST, capabilities=own)
    assert "decodes" in report.result.checks
    assert DECODED_CHECK not in report.result.checks


@pytest.mark.e2e
async def test_a_decoder_that_gets_no_time_does_not_block_the_encoder(
    run_job: Run, clips: Clips, tools: Tools, capabilities: Capabilities, tmp_path: Path
) -> None:
    own = with_decoder(tmp_path, tools, capabilities, "exec sleep 600")
    # The output is larger than the pipe's buffer.
    report = await run_job(clips.noise(), "h264", options={**FAST, "crf": 5}, capabilities=own)
    assert report.result.size_bytes > 2 << 20
    assert "decodes" in report.result.checks
    assert DECODED_CHECK not in report.result.checks


@pytest.mark.e2e
@pytest.mark.parametrize("size, niceness", [("1920x800", 19), ("320x180", 12)])
async def test_the_decoder_yields_to_the_encoder_and_most_with_large_pictures(
    run_job: Run,
    clips: Clips,
    tools: Tools,
    capabilities: Capabilities,
    tmp_path: Path,
    size: str,
    niceness: int,
) -> None:
    clip = clips.make(f"{size}.mp4", "-f", "lavfi", "-i", f"testsrc2=s={size}:r=25:d=0.2")
    own = with_decoder(tmp_path, tools, capabilities, f"nice > {tmp_path}/nice; exit 1")
    controls = Controls(ChildLimits(niceness=2))
    await run_job(clip, "h264", options=FAST, capabilities=own, controls=controls)
    assert int((tmp_path / "nice").read_text()) == niceness


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has SCHED_BATCH")
@pytest.mark.parametrize("size, is_batch", [("1920x800", True), ("1280x720", False)])
async def test_the_encode_of_large_pictures_is_batch_work_and_its_decoder_is_not(
    run_job: Run,
    clips: Clips,
    tools: Tools,
    capabilities: Capabilities,
    tmp_path: Path,
    size: str,
    is_batch: bool,
) -> None:
    clip = clips.make(f"{size}.mp4", "-f", "lavfi", "-i", f"testsrc2=s={size}:r=25:d=0.2")
    policy = f"cut -d' ' -f41 /proc/$$/stat >> {tmp_path}"  # proc(5)
    cases = f'*" tee "*) {policy}/encode;; *" pipe:0 "*) {policy}/decoder;;'
    ffmpeg = program(tmp_path / "ffmpeg", tools, cases)
    await run_job(clip, "h264", options=FAST, **using(ffmpeg, tools, capabilities))
    expected = os.SCHED_BATCH if is_batch else os.SCHED_OTHER
    assert (tmp_path / "encode").read_text().split() == [str(expected)]
    assert (tmp_path / "decoder").read_text().split() == [str(os.SCHED_OTHER)]


@pytest.mark.e2e
async def test_a_decoder_that_dies_during_the_encode_does_not_stop_it(
    run_job: Run, clips: Clips, tools: Tools, capabilities: Capabilities, tmp_path: Path
) -> None:
    own = with_decoder(tmp_path, tools, capabilities, "head -c 5000 >&2; exit 1")
    report = await run_job(clips.noise(), "h264", options=FAST, capabilities=own)
    assert report.result.video_frames == 250
    assert DECODED_CHECK not in report.result.checks


@pytest.mark.e2e
async def test_an_encode_that_fails_stops_its_decoder(
    run_job: Run, clips: Clips, tools: Tools, capabilities: Capabilities, tmp_path: Path
) -> None:
    ffmpeg = program(tmp_path / "ffmpeg", tools, '*" tee "*) exit 3;;')
    controls = Controls()
    with pytest.raises(EngineFault, match="exit code 3"):
        await run_job(
            clips.plain(),
            "h264",
            options=FAST,
            controls=controls,
            **using(ffmpeg, tools, capabilities),
        )
    assert not controls.children


# ------------------------------------------------------------------------- the comparison; no ffmpeg

PLAN = make_plan(
    Job("1", "file:///a", "h264"),
    Probe(
        "mov,mp4",
        1.0,
        0.0,
        (
            Stream(0, "video", "h264", width=160, height=90, fps=25.0),
            Stream(1, "audio", "aac", channels=2, sample_rate=48000),
        ),
    ),
)
LINES = """\
#format: frame checksums
#extradata 0,                              46, e0
#media_type 0: video
0,          0,          0,      512,     3544, aa
1,      -1024,      -1024,     1024,       23, bb, S=1,       10, ff
0,        512,        512,      512,      100, cc
"""


def hashes(lines: str = LINES) -> PacketHashes:
    found = PacketHashes()
    for line in lines.splitlines():
        found.framehash_line(line)
    return found


def decoded() -> Decoded:
    diagnosis = Diagnosis(read={0: ReadCount("video", 2, 2, 0), 1: ReadCount("audio", 1, 1, 0)})
    return Decoded(RunResult(0, diagnosis), hashes())


def scan(video: int = 2, audio: int = 1, hidden: int = 0) -> PacketScan:
    streams = {0: StreamPackets(count=video, hidden=hidden), 1: StreamPackets(count=audio)}
    return PacketScan(streams)


def test_a_file_with_the_same_packets_is_the_one_that_was_decoded() -> None:
    assert decoded().is_of(PLAN, scan(), hashes())
    other_times = LINES.replace("512,        512", "500,        500")
    assert decoded().is_of(PLAN, scan(), hashes(other_times))
    check_unaltered(decoded(), PLAN, hashes())


@pytest.mark.parametrize(
    "lines, found",
    [
        (LINES.replace("cc", "cd"), scan()),
        (LINES.replace("e0", "e1"), scan()),
        (LINES.replace("bb", "b0"), scan()),
        (LINES.replace("aa", "xx").replace("cc", "aa").replace("xx", "cc"), scan()),
        (LINES.rsplit("0,  ", 1)[0], scan(video=1)),
        (LINES, scan(video=3)),
        (LINES, scan(hidden=1)),
        ("", scan(0, 0)),
    ],
)
def test_a_file_with_any_other_packet_is_not_the_one_that_was_decoded(
    lines: str, found: PacketScan
) -> None:
    assert not decoded().is_of(PLAN, found, hashes(lines))


def test_other_bytes_in_as_many_packets_of_the_same_sizes_are_the_disks_fault() -> None:
    with pytest.raises(VerificationFault, match=r"video #0 .*: the disk returned other bytes"):
        check_unaltered(decoded(), PLAN, hashes(LINES.replace("cc", "cd")))
    # Another split into packets, as of PCM, is no fault: the file is decoded.
    check_unaltered(decoded(), PLAN, hashes(LINES.replace("100, cc", "101, cd")))


def test_streams_of_the_pipe_get_the_numbers_of_the_file() -> None:
    moved = decoded().renumbered([2, 5])
    assert set(moved.result.diagnosis.read) == set(moved.hashes.streams) == {2, 5}
    assert moved.hashes.of(5) == hashes().of(1)
