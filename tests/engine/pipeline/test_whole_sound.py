"""Check that an ffmpeg which decodes a part of the sound only is not the one whose output counts."""

from pathlib import Path

import msgspec
import pytest

from distconv_engine.checks.source import CheckedSource, FileState
from distconv_engine.encode.command import Request
from distconv_engine.encode.encoders import ENCODERS
from distconv_engine.encode.plan import make_plan
from distconv_engine.encode.run import Encoded
from distconv_engine.failures import Lacking
from distconv_engine.ffmpeg.progress import EncodeProgress
from distconv_engine.ffmpeg.stderr import Diagnosis
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.media.packets import PacketScan, StreamPackets
from distconv_engine.media.probe import Probe, Stream
from distconv_engine.pipeline.encoder_choice import require_whole_sound
from distconvd.model import Job, TranscodeOptions

BY_5_1 = "699 packets read (69900 bytes); 699 frames decoded (111840 samples); "
BY_9_0 = "699 packets read (69900 bytes); 3495 frames decoded; 0 decode errors (559200 samples); "


def encode_with(counts: str, codec: str = "amr_nb") -> None:
    """Check an encode of 69.9 s, of which ffmpeg said `counts`."""
    sound = Stream(0, "audio", codec, channels=1, sample_rate=8000)
    probe = Probe("mov,mp4,m4a,3gp,3g2,mj2", 69.9, 0.0, (sound,))
    options = msgspec.convert({"audio_codec": "aac"}, TranscodeOptions)
    plan = make_plan(Job("1", "file:///a", "h264", options=options), probe)
    tools, encoder = Tools("ffmpeg", "ffprobe", "8"), ENCODERS["libx264"]
    request = Request(tools, "file:/a", plan, options, encoder, "file:/b")
    packets = StreamPackets(count=699, total_s=69.9)
    source = CheckedSource(Path("/a"), FileState(1, 1, 1), probe, PacketScan({0: packets}), ())
    diagnosis = Diagnosis()
    diagnosis.line(f"[verbose] Input stream #0:0 (audio): {counts}")
    require_whole_sound(request, source, Encoded(diagnosis, EncodeProgress()))


def test_an_ffmpeg_that_decodes_one_frame_of_each_packet_leaves_the_job_to_another() -> None:
    with pytest.raises(Lacking, match=r"13\.98 s of the 69\.90 s of audio #0 \(amr_nb\)"):
        encode_with(BY_5_1)


@pytest.mark.parametrize(
    "counts,codec",
    [(BY_9_0, "amr_nb"), (BY_5_1, "aac"), ("699 packets read (69900 bytes); ", "amr_nb")],
)
def test_whole_sound_passes_and_so_does_sound_of_which_too_little_is_known(
    counts: str, codec: str
) -> None:
    encode_with(counts, codec)
