"""Every frame of a real output is shown when its source shows it, and sound begins where it did.

The lists are read here by ffprobe and compared as fractions, apart from the engine's own comparison.
"""

import json
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tests.engine.clips import Clips
from tests.engine.conftest import Run
from tests.engine.pipeline.timed import TIMED

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


TICK_S = {"mp4": 0.0, "mov": 0.0, "mkv": 0.001, "webm": 0.001, "ts": 1 / 90_000}
"""How coarse a container's clock is; that of MP4 counts whole parts of the source's tick."""


@pytest.mark.parametrize(
    "name,container",
    [
        *((name, "mp4") for name in TIMED),
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
    output = Path(report.output_url.removeprefix("file://"))
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
    output = Path(report.output_url.removeprefix("file://"))
    assert output.suffix == ".webm"
    assert off_by(times_of(tools, source, "v"), times_of(tools, output, "v")) <= TICK_S["webm"]
