"""Every frame of a real output is shown when its source shows it, and sound begins where it did.

The lists are read here by ffprobe and compared as fractions, apart from the engine's own comparison.
"""

import json
import re
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tests.engine.clips import H264, Clips
from tests.engine.conftest import Run
from tests.engine.patches import with_edits, with_pre_skip
from tests.engine.pipeline.timed import TIMED

from distconv_engine.failures import InputFault
from distconv_engine.ffmpeg.tools import Tools

pytestmark = pytest.mark.e2e
FAST = {"preset": "ultrafast"}


def times_of(tools: Tools, path: Path, kind: str) -> list[Fraction]:
    """Return when each packet is shown that a player shows, in seconds."""
    argv = [tools.ffprobe, "-v", "error", "-select_streams", f"{kind}:0", "-of", "json"]
    argv += ["-show_entries", "stream=time_base:packet=pts,flags", str(path)]
    found: dict[str, Any] = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    shown = [packet["pts"] for packet in found["packets"] if "D" not in packet["flags"]]
    tick = Fraction(found["streams"][0]["time_base"]) if shown else Fraction()
    return [ticks * tick for ticks in sorted(shown)]


def off_by(source: Sequence[Fraction], output: Sequence[Fraction]) -> float:
    """Return by how many seconds a frame is off at most, counted from the first frame."""
    moved = zip(source, output, strict=True)
    return float(max(abs((a - source[0]) - (b - output[0])) for a, b in moved))


def path_of(report: Any) -> Path:
    return Path(report.output_url.removeprefix("file://"))


def sound_starts_at(tools: Tools, path: Path) -> float:
    """Return when sound is first heard, in seconds after the first picture; measured in samples."""
    filters = "aresample=async=1:first_pts=0,silencedetect=noise=-40dB:duration=0.1"
    argv = [
        tools.ffmpeg,
        "-hide_banner",
        "-nostdin",
        "-i",
        str(path),
        "-map",
        "0:v?",
        "-map",
        "0:a:0",
    ]
    argv += ["-af", filters, "-f", "null", "-"]
    log = subprocess.run(argv, capture_output=True, text=True, check=True).stderr
    silences = re.findall(r"silence_start: (\S+)[^$]*?silence_end: (\S+)", log)
    begins_silent = bool(silences) and float(silences[0][0]) < 0.05
    return float(silences[0][1]) if begins_silent else 0.0


TICK_S = {"mp4": 0.0, "mov": 0.0, "mkv": 0.001, "webm": 0.001, "ts": 1 / 90_000}
"""How coarse a container's clock is; that of MP4 counts whole parts of the source's tick."""


@pytest.mark.parametrize(
    "name,container",
    [
        *((name, "mp4") for name in TIMED if name != "rate-2000-mkv"),
        *(("rate-rises", container) for container in ("mov", "mkv", "ts")),
        ("phone", "mkv"),
        ("phone", "ts"),
        ("picture-starts-at-21-ms", "mkv"),
        ("picture-starts-at-21-ms", "ts"),
        ("rate-2000", "mkv"),
    ],
)
async def test_every_frame_keeps_its_time(
    name: str, container: str, run_job: Run, clips: Clips, tools: Tools
) -> None:
    source = clips.timed(name)
    report = await run_job(source, "h264", options={**FAST, "container": container})
    assert "frame-times" in report.result.checks
    output = path_of(report)
    before, after = times_of(tools, source, "v"), times_of(tools, output, "v")
    assert len(before) == TIMED[name][2]
    assert off_by(before, after) <= TICK_S[container]
    sound, copied = times_of(tools, source, "a"), times_of(tools, output, "a")
    if sound:  # some containers show an encoder's priming, so the ends are compared
        late = (copied[-1] - after[0]) - (sound[-1] - before[0])
        assert abs(late) <= 0.001


async def test_every_frame_keeps_its_time_in_webm_and_with_two_passes(
    run_job: Run, clips: Clips, tools: Tools
) -> None:
    source = clips.timed("phone")
    options = {"preset": "8", "two_pass": True, "video_bitrate_kbps": 200}
    report = await run_job(source, "vp9", options=options)
    output = path_of(report)
    assert output.suffix == ".webm"
    assert off_by(times_of(tools, source, "v"), times_of(tools, output, "v")) <= TICK_S["webm"]


# ------------------------------------------------------------------------------------- a lower rate


@pytest.mark.parametrize(
    "name,fps,container",
    [
        ("rate-rises", 30, "mp4"),  # on the whole it has 26.7 frames a second
        ("rate-rises-ts", 30, "mkv"),
        ("phone", 12, "mp4"),
        ("rate-2000", 1000, "mp4"),
        ("rate-2000", 60, "mkv"),
        ("rate-2000-mkv", 1000, "ts"),
    ],
)
async def test_no_second_has_more_frames_than_max_fps(
    name: str, fps: float, container: str, run_job: Run, clips: Clips, tools: Tools
) -> None:
    source = clips.timed(name)
    options = {**FAST, "container": container, "max_fps": fps}
    output = path_of(await run_job(source, "h264", options=options))
    times = times_of(tools, output, "v")
    tick = Fraction(1, 1000) if container == "mkv" else Fraction(1, 90_000)
    for first, beyond in zip(times, times[int(fps) :], strict=False):
        assert beyond - first >= 1 - tick
    length, before = times[-1] - times[0], times_of(tools, source, "v")
    assert abs(length - (before[-1] - before[0])) <= 1 / fps


async def test_a_rate_below_max_fps_in_every_second_is_not_touched(
    run_job: Run, clips: Clips, tools: Tools
) -> None:
    source = clips.timed("rate-rises")
    report = await run_job(source, "h264", options={**FAST, "max_fps": 60})
    assert "frame-times" in report.result.checks
    assert off_by(times_of(tools, source, "v"), times_of(tools, path_of(report), "v")) == 0


@pytest.mark.parametrize("container", ["mp4", "mkv"])
async def test_frames_that_share_a_tick_follow_one_another(
    container: str, run_job: Run, clips: Clips, tools: Tools
) -> None:
    source = clips.timed("rate-2000-mkv")
    report = await run_job(source, "h264", options={**FAST, "container": container})
    assert "frame-times" in report.result.checks
    after = times_of(tools, path_of(report), "v")
    assert off_by(times_of(tools, source, "v"), after) <= 0.001
    assert container == "mkv" or len(set(after)) == 2000


# ---------------------------------------------------------------- what a header or edit list hides


@pytest.mark.parametrize(
    "gop,parts,frames", [(25, [(0, 1), (2, 1)], 50), (250, [(1, 1), (3, 1)], 50)]
)
async def test_a_trim_of_two_parts_keeps_what_players_show(
    gop: int,
    parts: list[tuple[int, int]],
    frames: int,
    run_job: Run,
    clips: Clips,
    tools: Tools,
    tmp_path: Path,
) -> None:
    recipe = f"-f lavfi -i testsrc2=s=64x36:r=25:d=4 -f lavfi -i sine=d=4:r=48000 {H264} -c:a aac -g {gop}"
    whole = clips.make(f"trim-{gop}.mp4", *recipe.split())
    source = tmp_path / "trimmed.mp4"
    source.write_bytes(with_edits(whole.read_bytes(), parts))
    report = await run_job(source, "h264", options=FAST)
    assert report.result.video_frames == frames
    assert report.result.duration_s == pytest.approx(2.0, abs=0.01)
    assert "frame-times" in report.result.checks
    assert sound_starts_at(tools, path_of(report)) == pytest.approx(0.0, abs=0.03)


async def test_a_trimmed_file_that_is_cut_is_still_found_out(
    run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    recipe = (
        f"-f lavfi -i testsrc2=s=64x36:r=25:d=4 -f lavfi -i sine=d=4:r=48000 {H264} -c:a aac -g 25"
    )
    whole = with_edits(clips.make("trim-25.mp4", *recipe.split()).read_bytes(), [(0, 1), (2, 1)])
    source = tmp_path / "cut.mp4"
    middle = len(whole) // 8  # in the first part
    source.write_bytes(whole[:middle] + bytes(2000) + whole[middle + 2000 :])
    with pytest.raises(InputFault):
        await run_job(source, "h264", options=FAST)


@pytest.mark.parametrize("name", ["sound-starts-late.wmv", "sound-starts-late.ogg"])
async def test_sound_that_starts_late_is_no_cut_and_stays_where_it_is(
    name: str, run_job: Run, clips: Clips, tools: Tools
) -> None:
    codecs = "-c:v wmv2 -c:a wmav2" if name.endswith("wmv") else "-c:v libtheora -c:a libopus"
    recipe = f"-f lavfi -i testsrc2=s=64x36:d=6 -itsoffset 0.8 -f lavfi -i sine=d=5.2 {codecs}"
    source = clips.make(name, *recipe.split())
    report = await run_job(source, "h264", options={**FAST, "container": "mkv"})
    late_s = sound_starts_at(tools, path_of(report)) - sound_starts_at(tools, source)
    assert abs(late_s) < 0.05


@pytest.mark.parametrize("container", ["mp4", "mkv"])
async def test_opus_with_a_long_pre_skip_is_copied_and_stays_where_it_is(
    container: str, run_job: Run, clips: Clips, tools: Tools, tmp_path: Path
) -> None:
    tone = clips.make("tone.ogg", *["-f", "lavfi", "-i", "sine=d=3:r=48000", "-c:a", "libopus"])
    source = tmp_path / "skip.ogg"
    source.write_bytes(with_pre_skip(tone.read_bytes(), 14_337))
    report = await run_job(source, "h264", options={"container": container})
    assert report.result.kept == ["audio #0 (opus) copied"]
