"""Test which of ffmpeg's lines are damage, which are harmless, and how counts are read."""

import signal

import pytest

from distconv_engine.encode.run import classify_exit
from distconv_engine.failures import EngineFault, InputFault, JobFailure, TransientFault
from distconv_engine.ffmpeg.progress import EncodeProgress, ProgressParser
from distconv_engine.ffmpeg.run import RunResult
from distconv_engine.ffmpeg.stderr import TAIL_LINES, Diagnosis

LOST_FRAME = (
    "[verbose] Input stream #0:0 (video): 4 packets read (1 bytes); 3 frames decoded; "
    "1 decode errors; "
)


def read(*lines: str) -> Diagnosis:
    diagnosis = Diagnosis()
    for line in lines:
        diagnosis.line(line)
    return diagnosis


@pytest.mark.parametrize(
    "line",
    [
        "[mov,mp4,m4a,3gp,3g2,mj2 @ 0x7f78] [error] stream 1, offset 0xd445: partial file",
        "[in#0/matroska,webm @ 0x7f74] [error] File ended prematurely",
        "[h264 @ 0x7f98] [error] error while decoding MB 4 4",
        "[vist#0:0/h264 @ 0x7f98] [dec:h264 @ 0x7f99] [warning] corrupt decoded frame",
        "[libdav1d @ 0x7f98] [error] Error parsing OBU data",
        "[aist#0:1/aac @ 0x1] [dec:aac @ 0x2] [error] Error submitting packet to decoder: x",
    ],
)
def test_an_error_from_a_demuxer_or_decoder_is_damage(line: str) -> None:
    assert read(line).damage


@pytest.mark.parametrize(
    "line",
    [
        "[libx264 @ 0x7f78] [error] bad luck",
        "[out#0/mp4 @ 0x7f78] [error] Error writing trailer: x",
        "[vost#0:0/libx264 @ 0x1] [enc:libx264 @ 0x2] [error] Error while opening encoder",
        "[Parsed_scale_0 @ 0x1] [error] x",
        "[error] Conversion failed!",
        "[h264 @ 0x7f78] [warning] something odd",
        "[h264 @ 0x7f78] [error] co located POCs unavailable",
        "[matroska,webm @ 0x1] [error] Chapter end time 200000000 before start 1000000000",
        "[h264 @ 0x7f78] [verbose] Reinit context to 160x96",
        "Svt[info]: hello",
        "",
    ],
)
def test_harmless_lines_and_errors_from_encoders_or_muxers_are_not_damage(line: str) -> None:
    assert not read(line).damage


@pytest.mark.parametrize(
    "line,kind",
    [
        (
            "[mpegts @ 0x7f01] [warning] Packet corrupt (stream = 1, dts = 182425).",
            "corrupt-packet",
        ),
        ("[in#0/wav @ 0x7f01] [warning] corrupt input packet in stream 0", "corrupt-packet"),
        ("[mpegts @ 0x7f01] [warning] PES packet size mismatch", "packet-length"),
        ("[h264 @ 0x7f78] [error] non-existing PPS 0 referenced", "no-parameters"),
        ("[mpeg2video @ 0x7f78] [error] Invalid frame dimensions 0x0.", "no-parameters"),
        ("[hevc @ 0x7f78] [error] Could not find ref with POC 12", "no-reference"),
        ("[h264 @ 0x7f78] [error] never seen before", "unknown"),
    ],
)
def test_a_message_that_something_has_to_confirm_is_no_damage_by_itself(
    line: str, kind: str
) -> None:
    found = read(line)
    assert list(found.doubts) == [kind]
    assert not found.damage


def test_a_message_about_a_chapter_concerns_neither_picture_nor_sound() -> None:
    found = read("[matroska,webm @ 0x1] [error] Chapter end time 2 before start 10")
    assert found.unconcerned == {"bad-chapter"}
    assert not found.doubts


def test_decode_errors_are_counted_where_the_version_prints_no_count_of_them() -> None:
    """As ffmpeg 5.1 does."""
    found = read(
        "[error] Error while decoding stream #0:0: Invalid data found when processing input",
        "[verbose]   Input stream #0:0 (audio): 19 packets read (95106 bytes); 18 frames decoded"
        " (73728 samples); ",
    )
    assert found.decode_errors == 1


def test_the_counts_at_the_end_are_read() -> None:
    found = read(
        "[out#0/mp4 @ 0x1] [verbose]   Output stream #0:0 (video): 47 frames encoded; "
        "48 packets muxed (68428 bytes); ",
        "[out#0/mp4 @ 0x1] [verbose]   Output stream #0:1 (audio): 48 packets muxed (1 bytes); ",
        "[in#0/mov @ 0x1] [verbose]   Input stream #0:0 (video): 48 packets read (70130 bytes); "
        "46 frames decoded; 2 decode errors; ",
        "[in#0/mov @ 0x1] [verbose]   Input stream #0:1 (audio): 88 packets read (17627 bytes); ",
        "[verbose]   Input stream #1:0 (audio): 9 packets read (1 bytes); ",
    )
    assert (found.written[0].frames, found.written[0].packets) == (47, 48)
    assert (found.written[1].frames, found.written[1].packets) == (None, 48)
    assert (found.read[0].packets, found.read[0].frames, found.read[0].errors) == (48, 46, 2)
    assert found.read[1].frames is None
    assert set(found.read) == {0, 1}
    assert found.decode_errors == 2


def test_the_tail_is_bounded_and_omits_verbose_lines() -> None:
    found = read(*(f"[info] line {n}" for n in range(500)), "[verbose] chatter")
    assert len(found.tail.splitlines()) == TAIL_LINES
    assert "chatter" not in found.tail


@pytest.mark.parametrize(
    "code,lines,kind,words",
    [
        (0, ["[h264 @ 0x1] [error] error while decoding MB 1 2"], InputFault, "damaged"),
            (1, ["[h264 @ 0x1] [error] bad"], InputFault, "damaged"),
        (0, [LOST_FRAME], InputFault, "cannot be decoded"),
        (1, ["[out#0/mp4 @ 0x1] [error] No space left on device"], TransientFault, "full"),
        (1, ["[error] Unknown encoder"], EngineFault, "Unknown encoder"),
        (-signal.SIGKILL, [], EngineFault, "SIGKILL"),
        (-signal.SIGXCPU, [], EngineFault, "SIGXCPU"),
    ],
)  # fmt: skip
def test_the_end_of_ffmpeg_is_classified_by_whose_fault_it_is(
    code: int, lines: list[str], kind: type[JobFailure], words: str
) -> None:
    with pytest.raises(kind) as caught:
        classify_exit(RunResult(code, read(*lines)))
    assert words in caught.value.message


def test_exit_code_0_without_damage_is_not_a_failure() -> None:
    classify_exit(RunResult(0, read("[info] fine")))


def test_progress_blocks_become_values() -> None:
    found: list[EncodeProgress] = []
    parser = ProgressParser(found.append)
    text = "frame=48\nfps=12.5\nout_time_us=2000000\nspeed=1.5x\ntotal_size=9\nprogress=continue\n"
    text += "frame=0\nfps=0.00\nout_time_us=N/A\nspeed=N/A\ntotal_size=N/A\nprogress=end"
    for line in text.splitlines():
        parser.line(line)
    first, last = found
    assert (first.frame, first.fps, first.speed, first.out_time_s) == (48, 12.5, 1.5, 2.0)
    assert first.fraction(4.0) == 0.5
    assert first.eta_s(5.0) == 2.0
    assert (last.out_time_s, last.speed, last.eta_s(4.0), last.fraction(4.0)) == (
        None,
        None,
        None,
        0,
    )
