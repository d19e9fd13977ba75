"""Break each link of the chain of counts once: the failure names what is missing. No ffmpeg."""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest

from distconv_engine.checks.output import _check_audio, check_counts, check_shape
from distconv_engine.checks.registry import Check
from distconv_engine.checks.source import (
    CheckedSource,
    FileState,
    check_end_of_source,
    check_source_packets,
)
from distconv_engine.encode.command import Request
from distconv_engine.encode.encoders import ENCODERS
from distconv_engine.encode.plan import OutputStream, make_plan
from distconv_engine.encode.run import Encoded, classify_exit
from distconv_engine.failures import (
    EngineFault,
    InputFault,
    JobFailure,
    VerificationFault,
)
from distconv_engine.ffmpeg.progress import EncodeProgress
from distconv_engine.ffmpeg.run import RunResult
from distconv_engine.ffmpeg.stderr import Diagnosis, ReadCount, WriteCount
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.media.evidence import weigh_decode
from distconv_engine.media.frame_times import FrameTimes
from distconv_engine.media.packets import PacketScan, StreamPackets
from distconv_engine.media.probe import Colour, Probe, Stream, parse_probe
from distconv_engine.media.structure.facts import Structure
from distconvd.model import Job, TranscodeOptions

VIDEO = Stream(
    0,
    "video",
    "h264",
    width=160,
    height=90,
    fps=25.0,
    time_base=Fraction(1, 12_800),
    frames_declared=100,
)
AUDIO = Stream(1, "audio", "aac", channels=2, sample_rate=48000)
TICK = Fraction(1, 1000)
FOUND = Probe("mov,mp4", 4.0, 0.0, (VIDEO, AUDIO))


def packets(count: int, end_s: float, **changes: object) -> StreamPackets:
    made = StreamPackets(count=count, first_s=0.0, end_s=end_s, total_s=end_s)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


@dataclasses.dataclass
class Case:
    """A correct conversion, to be corrupted in one place."""

    before: PacketScan
    after: PacketScan
    encoded: Encoded
    decoded: Diagnosis
    options: TranscodeOptions = dataclasses.field(default_factory=TranscodeOptions)

    def check(self) -> tuple[Check, ...]:
        job = Job("1", "file:///a", "h264", options=self.options)
        plan = make_plan(job, FOUND)
        tools = Tools("ffmpeg", "ffprobe", "8")
        encoder = ENCODERS["libx264"]
        request = Request(tools, "file:/a", plan, self.options, encoder, "file:/b", "ffmpeg")
        source = CheckedSource(Path("/a"), FileState(1, 1, 1), FOUND, self.before, ())
        return check_counts(request, source, self.encoded, self.after, self.decoded, TICK)


def correct_case() -> Case:
    encoding, decoding = Diagnosis(), Diagnosis()
    encoding.read = {0: ReadCount("video", 100, 100, 0), 1: ReadCount("audio", 200, None, 0)}
    encoding.written = {0: WriteCount("video", 100, 100), 1: WriteCount("audio", None, 200)}
    decoding.read = {0: ReadCount("video", 100, 100, 0), 1: ReadCount("audio", 200, 199, 0)}
    return Case(
        PacketScan({0: packets(100, 4.0), 1: packets(200, 4.1)}),
        PacketScan({0: packets(100, 4.0), 1: packets(200, 4.1)}),
        Encoded(encoding, EncodeProgress(frame=100)),
        decoding,
    )


def test_a_correct_conversion_passes() -> None:
    assert correct_case().check() == (
        Check.PACKETS_READ,
        Check.FRAMES,
        Check.DURATIONS,
        Check.DECODES,
    )


def read_less(case: Case) -> None:
    case.encoded.diagnosis.read[0] = ReadCount("video", 90, 90, 0)


def decode_less(case: Case) -> None:
    case.encoded.diagnosis.read[0] = ReadCount("video", 100, 80, 0)


def encode_less(case: Case) -> None:
    case.encoded.diagnosis.written[0] = WriteCount("video", 95, 95)


def write_less(case: Case) -> None:
    case.decoded.read[0] = ReadCount("video", 99, 99, 0)


def no_counts(case: Case) -> None:
    case.encoded.diagnosis.written.clear()


def shorter_video(case: Case) -> None:
    case.after.streams[0] = packets(100, 3.7)


def shorter_audio(case: Case) -> None:
    case.after.streams[1] = packets(200, 3.5)


def fewer_audio_packets(case: Case) -> None:
    case.after.streams[1] = packets(190, 4.1)


def hidden_audio_shown(case: Case) -> None:
    case.before.streams[1] = packets(200, 4.1, hidden=40, hidden_s=0.8)


def no_audio(case: Case) -> None:
    del case.after.streams[1]


@pytest.mark.parametrize(
    "corrupt_case,kind",
    [
        (read_less, VerificationFault),
        (decode_less, InputFault),
        (encode_less, VerificationFault),
        (write_less, VerificationFault),
        (no_counts, VerificationFault),
        (shorter_video, VerificationFault),
        (shorter_audio, VerificationFault),
        (fewer_audio_packets, VerificationFault),
        (hidden_audio_shown, VerificationFault),
        (no_audio, VerificationFault),
    ],
)
def test_each_loss_in_the_chain_of_counts_is_found(
    corrupt_case: Callable[[Case], None], kind: type[JobFailure]
) -> None:
    case = correct_case()
    corrupt_case(case)
    with pytest.raises(kind):
        case.check()


def test_frames_that_an_edit_list_hides_are_not_reported_missing() -> None:
    case = correct_case()
    case.before.streams[0] = packets(110, 4.0, hidden=10)
    case.check()


def test_a_lower_frame_rate_is_checked_by_duration() -> None:
    case = correct_case()
    case.options = TranscodeOptions(max_fps=10.0)
    case.encoded.diagnosis.written[0] = WriteCount("video", 40, 40)
    case.decoded.read[0] = ReadCount("video", 40, 40, 0)
    case.after.streams[0] = packets(40, 4.0)
    case.check()
    case.after.streams[0] = packets(40, 3.0)
    with pytest.raises(VerificationFault):
        case.check()


def timed(case: Case, moved: int = 0) -> None:
    """Give each frame a time: every 40 ms, but for number 50 of the output."""
    for side, tick in ((case.before, 512), (case.after, 40)):
        side.streams[0].times = times = FrameTimes()
        for number in range(100):
            times.add(number * tick + (moved if side is case.after and number == 50 else 0))
        times.close()


def test_frames_that_keep_their_times_pass_whatever_the_last_one_lasts() -> None:
    case = correct_case()
    case.after.streams[0] = packets(100, 4.7)
    timed(case)
    assert Check.FRAME_TIMES in case.check()


def test_a_frame_that_is_shown_at_another_time_is_found() -> None:
    case = correct_case()
    timed(case, moved=2)
    with pytest.raises(VerificationFault, match=r"video #0 \(h264\): frame 51 is 2.002000 s after"):
        case.check()


@pytest.mark.parametrize("slip_s,found", [(0.02, False), (0.05, True), (-0.05, True)])
def test_copied_sound_that_slips_against_the_picture_is_found(slip_s: float, found: bool) -> None:
    case = correct_case()
    timed(case)
    case.after.streams[1] = packets(200, 4.1 + slip_s, first_s=slip_s)
    if found:
        way = "later" if slip_s > 0 else "earlier"
        with pytest.raises(VerificationFault, match=rf"audio #1 \(aac\) is 0.050 s {way} than"):
            case.check()
    else:
        case.check()


def test_sound_of_which_only_the_beginning_moves_has_not_slipped() -> None:
    case = correct_case()
    timed(case)
    case.after.streams[1] = packets(200, 4.1, first_s=-0.021)
    case.check()


# --------------------------------------------------------------------------------- the source


def whole() -> PacketScan:
    return PacketScan({0: packets(100, 4.0), 1: packets(200, 4.0)})


def test_a_whole_source_passes() -> None:
    check_source_packets(FOUND, whole())


@pytest.mark.parametrize(
    "index,corrupted,words",
    [
        (0, packets(60, 2.4), "should have 100 frames, but has 60"),
        (0, packets(100, 4.0, corrupt=2), "2 packets"),
        (0, packets(100, 4.0, zeroed=1), "holes"),
        (0, packets(0, 0.0), "no data"),
    ],
)
def test_what_a_source_lacks_is_reported(index: int, corrupted: StreamPackets, words: str) -> None:
    scan = whole()
    scan.streams[index] = corrupted
    with pytest.raises(InputFault) as caught:
        check_source_packets(FOUND, scan)
    assert words in caught.value.message


def test_a_header_that_states_more_than_the_data_is_a_cut_source() -> None:
    fragmented = (dataclasses.replace(VIDEO, frames_declared=None), AUDIO)
    with pytest.raises(InputFault) as caught:
        check_source_packets(
            dataclasses.replace(FOUND, duration_s=10.0, streams=fragmented), whole()
        )
    assert "its header says 10.00 s, its data ends at 4.00 s" in caught.value.message
    # An estimated duration proves nothing, nor does one whose clock jumps.
    check_source_packets(dataclasses.replace(FOUND, duration_s=10.0, format="mpegts"), whole())
    scan = whole()
    scan.streams[1].jumps = 1
    check_source_packets(dataclasses.replace(FOUND, duration_s=10.0), scan)


def test_a_duration_proves_nothing_where_the_index_lists_each_packet() -> None:
    check_source_packets(dataclasses.replace(FOUND, duration_s=10.0), whole())


def test_a_stream_that_is_announced_without_packets_is_no_damage() -> None:
    scan = whole()
    del scan.streams[1]
    check_source_packets(FOUND, scan)
    with pytest.raises(InputFault, match="no data"):
        check_source_packets(dataclasses.replace(FOUND, streams=(AUDIO,)), scan)


def test_the_last_packet_may_be_short_only_where_no_length_is_set() -> None:
    scan = PacketScan({1: packets(9, 4.0, corrupt=1, corrupt_end_byte=90)}, end_byte=90)
    found = dataclasses.replace(FOUND, streams=(AUDIO,))
    check_source_packets(found, scan, Structure(unset_length=True))
    with pytest.raises(InputFault, match="1 packet"):
        check_source_packets(found, scan)
    scan.end_byte = 100
    with pytest.raises(InputFault, match="1 packet"):
        check_source_packets(found, scan, Structure(unset_length=True))


NO_PICTURE_YET = "[h264 @ 0x1] [error] non-existing PPS 0 referenced"
UNKNOWN = "[h264 @ 0x1] [error] never seen before"


def test_a_missing_reference_is_damage_unless_the_source_begins_before_a_key_frame() -> None:
    scan = whole()
    scan.diagnosis.line(NO_PICTURE_YET)
    with pytest.raises(InputFault, match="non-existing PPS"):
        check_source_packets(FOUND, scan)
    scan.streams[0].before_key = 15
    check_source_packets(FOUND, scan)


def test_frames_before_the_first_key_frame_may_be_missing_and_no_others() -> None:
    case = correct_case()
    case.before.streams[0] = packets(115, 4.0, before_key=15)
    case.encoded.diagnosis.read[0] = ReadCount("video", 115, 100, 0)
    case.check()
    case.before.streams[0] = packets(115, 4.0, before_key=9)
    with pytest.raises(InputFault, match="115 packets"):
        case.check()


def test_empty_packets_repeat_a_picture_and_are_none_themselves() -> None:
    case = correct_case()
    case.before.streams[0] = packets(110, 4.0, empty=10)
    case.encoded.diagnosis.read[0] = ReadCount("video", 110, 100, 0)
    case.check()


def test_an_unknown_message_is_damage_where_packets_have_a_gap() -> None:
    scan = whole()
    scan.diagnosis.line(UNKNOWN)
    check_source_packets(FOUND, scan)
    scan.streams[1].gap_s = 0.5
    with pytest.raises(InputFault, match="never seen before"):
        check_source_packets(FOUND, scan)


def test_an_unknown_message_of_the_encode_is_left_to_a_strict_decode() -> None:
    diagnosis = Diagnosis()
    diagnosis.line(UNKNOWN)
    doubt = weigh_decode(diagnosis, {})
    assert doubt is not None
    assert "never seen before" in doubt.words


def test_decode_errors_count_beyond_those_before_the_first_key_frame() -> None:
    diagnosis = Diagnosis(read={0: ReadCount("video", 100, 95, 5)})
    weigh_decode(diagnosis, {0: 5})
    with pytest.raises(InputFault, match="1 frame cannot"):
        weigh_decode(diagnosis, {0: 4})
    with pytest.raises(InputFault, match="5 frames cannot"):
        weigh_decode(diagnosis, {1: 5})


def test_frames_that_an_edit_list_hides_from_every_reader_do_not_lack() -> None:
    shown = PacketScan({0: packets(52, 2.0), 1: packets(100, 2.0)})
    found = dataclasses.replace(FOUND, duration_s=2.0)
    check_source_packets(found, shown, stored=whole())
    with pytest.raises(InputFault, match="should have 100 frames, but has 60"):
        check_source_packets(found, shown, stored=PacketScan({0: packets(60, 2.4)}))


def test_where_a_late_stream_makes_the_stated_duration_longer_it_is_no_cut() -> None:
    late = PacketScan({0: packets(100, 4.0), 1: packets(160, 4.0, first_s=0.8)})
    found = dataclasses.replace(FOUND, duration_s=4.8, format="ogg")
    check_source_packets(found, late)
    with pytest.raises(InputFault, match=r"its header says 4\.80 s"):
        check_source_packets(found, whole())
    with pytest.raises(InputFault, match=r"its header says 4\.80 s"):
        check_source_packets(dataclasses.replace(found, format="flv"), late)


def clocked(*times_s: float) -> StreamPackets:
    packets = StreamPackets()
    for time_s in times_s:
        packets.add(time_s, 0.5, 9, "K__", time_s)
    return packets


def test_a_restarted_clock_is_distinguished_from_disorder() -> None:
    assert clocked(0.0, 1.0, 0.5, 1.5, 3.0, 2.1).back is None
    concatenated = clocked(0.0, 2.0, 4.0, 0.0, 2.0)
    assert (concatenated.back, concatenated.jumps) == ((4.0, 0.0), 1)


def test_a_clock_that_restarts_is_a_second_recording_in_a_format_with_one_clock() -> None:
    scan = whole()
    scan.streams[1].back = (4.0, 0.0)
    with pytest.raises(InputFault, match=r"audio #1 \(aac\) goes back from 4\.00 s to 0\.00 s"):
        check_source_packets(FOUND, scan)
    chained = dataclasses.replace(FOUND, format="mpegts")
    check_source_packets(chained, scan)
    scan.streams[0].corrupt = 1
    with pytest.raises(
        InputFault, match=r"or concatenated .its clock goes back from 4\.00 s to 0\.00 s"
    ):
        check_source_packets(chained, scan)


def test_recordings_whose_concatenated_clocks_do_not_add_up_are_the_sources_fault() -> None:
    case = correct_case()
    case.before.streams[1] = packets(200, 2.0, total_s=4.1, jumps=1, back=(2.0, 0.0))
    case.check()
    case.after.streams[1] = packets(200, 9.0)
    with pytest.raises(InputFault, match=r"clock goes back from 2\.00 s to 0\.00 s in audio #1"):
        case.check()


def test_errors_of_the_demuxer_are_damage() -> None:
    scan = whole()
    scan.diagnosis.line("[mov,mp4 @ 0x1] [error] stream 0, offset 0x1: partial file")
    with pytest.raises(InputFault):
        check_source_packets(FOUND, scan)


@pytest.mark.parametrize(
    "hidden,edit",
    [
        (range(0), None),
        (range(6), None),  # an encoder's priming
        (range(7), "head"),
        (range(50, 51), "inside"),
        (range(98, 100), None),  # after the last that is shown
    ],
)
def test_audio_hidden_by_an_edit_list_is_recorded(hidden: range, edit: str | None) -> None:
    audio = StreamPackets()
    for number in range(100):
        audio.add(number * 0.023, 0.023, 100, "KD_" if number in hidden else "K__")
    scan = PacketScan({0: packets(100, 4.0), 1: audio})
    found = CheckedSource(Path("/a"), FileState(1, 1, 1), FOUND, scan, ()).edits
    assert found == ({1: edit} if edit else {})


# ----------------------------------------------------------------------------------- the shape


def shape(*streams: Stream, name: str = "mov,mp4", source: Probe = FOUND) -> tuple[Check, ...]:
    job = Job("1", "file:///a", "h264")
    plan = make_plan(job, source)
    tools, encoder = Tools("ffmpeg", "ffprobe", "8"), ENCODERS["libx264"]
    request = Request(tools, "file:/a", plan, TranscodeOptions(), encoder, "file:/b")
    return check_shape(request, Probe(name, 4.0, 0.0, streams))


def test_the_planned_streams_pass_also_with_a_chapter_track() -> None:
    shape(VIDEO, AUDIO, Stream(2, "data", "bin_data"))


@pytest.mark.parametrize(
    "streams,name",
    [
        ((VIDEO, AUDIO), "matroska,webm"),
        ((VIDEO,), "mov,mp4"),
        ((VIDEO, AUDIO, AUDIO), "mov,mp4"),
        ((VIDEO, dataclasses.replace(AUDIO, codec="mp3")), "mov,mp4"),
        ((dataclasses.replace(VIDEO, codec="hevc"), AUDIO), "mov,mp4"),
        ((dataclasses.replace(VIDEO, width=80), AUDIO), "mov,mp4"),
        ((AUDIO, AUDIO), "mov,mp4"),
    ],
)
def test_other_streams_than_planned_are_found(streams: tuple[Stream, ...], name: str) -> None:
    with pytest.raises(VerificationFault):
        shape(*streams, name=name)


def test_a_lost_hdr_tag_is_found() -> None:
    hdr = dataclasses.replace(VIDEO, colour=Colour(transfer="smpte2084"), pix_fmt="yuv420p10le")
    source = dataclasses.replace(FOUND, streams=(hdr, AUDIO))
    shape(hdr, AUDIO, source=source)
    for lost in (
        dataclasses.replace(hdr, colour=Colour()),
        dataclasses.replace(hdr, pix_fmt="yuv420p"),
    ):
        with pytest.raises(VerificationFault):
            shape(lost, AUDIO, source=source)


# ----------------------------------------------------------------------------------- the probe


def test_ffprobes_output_is_parsed_into_typed_values() -> None:
    raw = {
        "format": {"format_name": "matroska,webm", "duration": "2.5", "start_time": "-0.021"},
        "streams": [
            {
                "index": 0,
                "codec_type": "video",
                "codec_name": "hevc",
                "avg_frame_rate": "24000/1001",
                "color_transfer": "smpte2084; rm -rf",
                "color_primaries": "bt2020",
                "pix_fmt": "yuv420p10le",
                "width": 10,
                "height": 20,
                "side_data_list": [{"side_data_type": "Display Matrix", "rotation": -90}],
                "tags": {"DURATION": "01:00:02.500000000", "language": "und"},
            },
            {"index": 1, "disposition": {"attached_pic": 1}, "codec_type": "video"},
        ],
        "chapters": [{"id": 1}],
    }
    found = parse_probe(msgspec.json.encode(raw))
    video = found.main_video
    assert video is not None
    assert (round(video.fps or 0, 3), video.duration_s, video.bit_depth) == (23.976, 3602.5, 10)
    assert (video.shown_size, video.language) == ((20, 10), None)
    assert video.colour == Colour(primaries="bt2020")  # a file does not choose arguments
    assert (found.chapters, found.start_s, found.streams[1].is_video) == (1, -0.021, False)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{half", b'{"streams": 5}'])
def test_a_malformed_description_is_an_input_failure(raw: bytes) -> None:
    with pytest.raises(InputFault):
        parse_probe(raw)


# --------------------------------------------------------------------------- odd kinds of source


def test_an_incomplete_last_packet_is_found_where_the_demuxer_drops_it() -> None:
    found = dataclasses.replace(FOUND, format="yuv4mpegpipe")
    check_end_of_source(found, PacketScan(end_byte=1000), 1000)
    check_end_of_source(FOUND, PacketScan(end_byte=900), 1000)
    with pytest.raises(InputFault, match=r"at byte 900, is incomplete \(100 bytes\)"):
        check_end_of_source(found, PacketScan(end_byte=900), 1000)


def test_a_stream_without_a_clock_is_counted_only() -> None:
    case = correct_case()
    case.before.streams[0] = StreamPackets(count=100)
    assert case.check()
    case.before.streams[0] = StreamPackets(count=120)
    with pytest.raises(VerificationFault, match="120 packets"):
        case.check()


def test_a_decoder_that_ffmpeg_lacks_is_not_the_sources_fault() -> None:
    diagnosis = Diagnosis()
    words = "Decoding requested, but no decoder found for: apng"
    diagnosis.line(f"[vist#0:0/apng @ 0x5581] [error] {words}")
    assert not diagnosis.damage
    with pytest.raises(EngineFault, match="no decoder for apng"):
        classify_exit(RunResult(234, diagnosis))


@pytest.mark.parametrize("share, is_whole", [(1.0, True), (0.9, False)])
def test_copied_uncompressed_audio_is_compared_by_bytes_however_it_is_split_into_packets(
    share: float, is_whole: bool
) -> None:
    pcm = OutputStream(Stream(0, "audio", "pcm_s16le", channels=2), "copy", "pcm_s16le")
    before = packets(87, 4.0, total_bytes=768_000)
    after = packets(22, 4.0, total_bytes=int(768_000 * share))
    if is_whole:
        _check_audio(pcm, before, after, sizes_known=True)
    else:
        with pytest.raises(VerificationFault, match="the output has 691200"):
            _check_audio(pcm, before, after, sizes_known=True)
