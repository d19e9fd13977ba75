"""Check that hardware encoders are used if they work, and else fall back if permitted.

There is no such hardware here. A program in front of ffmpeg simulates `h264_nvenc`: it encodes with
libx264, or fails as a driver does.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.clips import Clips
from tests.engine.conftest import of_one_ffmpeg
from tests.engine.daemon import FakeDaemon
from tests.engine.pipeline.test_streamed import LARGE, serve

from distconv_engine.encode.encoders import ENCODERS
from distconv_engine.failures import EngineFault, InputFault
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.host.capabilities import Capabilities, VerifiedEncoder, encodes
from distconv_engine.media.ffmpeg import Ffmpeg

pytestmark = pytest.mark.e2e
Run = Callable[..., Any]
NVENC = ENCODERS["h264_nvenc"]

DRIVER = """\
#!{python}
import os, sys
argv = sys.argv[1:]
if "h264_nvenc" in argv:
    if {broken}:
        sys.exit("[h264_nvenc @ 0x1] No capable devices found")
    words = {{"h264_nvenc": "libx264", "-cq": "-crf", "p1": "ultrafast", "p5": "fast"}}
    text = "\\0".join(words.get(word, word) for word in argv)
    argv = text.replace("-rc\\0vbr\\0-b:v\\0000\\0", "").split("\\0")
os.execv({ffmpeg!r}, [{ffmpeg!r}, *argv])
"""


def with_driver(tools: Tools, folder: Path, *, broken: bool) -> Tools:
    """Return tools whose ffmpeg has a simulated `h264_nvenc`."""
    program = folder / "ffmpeg-nvenc"
    program.write_text(DRIVER.format(python=sys.executable, broken=broken, ffmpeg=tools.ffmpeg))
    program.chmod(0o755)
    return dataclasses.replace(tools, ffmpeg=str(program))


def preferring_nvenc(capabilities: Capabilities, tools: Tools) -> Capabilities:
    """Return capabilities with the hardware encoder in front, and one ffmpeg for everything."""
    own = of_one_ffmpeg(capabilities, tools)
    rows = (VerifiedEncoder(NVENC, tools), *own.encoders("h264"))
    return Capabilities({**own.by_codec, "h264": rows}, own.readers)


@pytest.fixture
def run_driven(
    tools: Tools, capabilities: Capabilities, run_job: Run, clips: Clips, tmp_path: Path
) -> Run:
    """Run a job on a source, by default the plain clip, on an engine that prefers that encoder."""

    async def run(source: Path | str | None = None, *, broken: bool, **more: Any) -> Any:
        driven = with_driver(tools, tmp_path, broken=broken)
        preferred = preferring_nvenc(capabilities, driven)
        return await run_job(source or clips.plain(), tools=driven, capabilities=preferred, **more)

    return run


@pytest.mark.parametrize("broken", [False, True])
async def test_an_encoder_is_listed_when_it_really_encodes(
    broken: bool, tools: Tools, tmp_path: Path
) -> None:
    driven = with_driver(tools, tmp_path, broken=broken)
    works = await encodes(Ffmpeg(driven, Controls()), NVENC, tmp_path / "proof.mkv")
    assert works is not broken


async def test_working_hardware_encodes_the_job(run_driven: Run) -> None:
    report = await run_driven(broken=False, options={"preset": "ultrafast"})
    assert report.result.encoder == "h264_nvenc"
    assert report.result.notes is None


@pytest.mark.parametrize(
    "broken,options",
    [
        (True, {}),
        (False, {"tune": "film"}),
        (False, {"crf": 0}),
        (False, {"two_pass": True, "video_bitrate_kbps": 200}),
    ],
)
async def test_hardware_that_fails_or_cannot_do_it_falls_back_to_software_which_is_recorded(
    broken: bool, options: dict[str, Any], run_driven: Run
) -> None:
    report = await run_driven(broken=broken, options={"preset": "ultrafast", **options})
    assert report.result.encoder == "libx264"
    assert report.result.notes == ["fallback-from-h264_nvenc"]


@pytest.mark.parametrize(
    "broken,options,words",
    [
        (True, {}, "No capable devices"),
        (False, {"tune": "film"}, "does not support this job's options.tune"),
    ],
)
async def test_hardware_falls_back_to_software_only_if_the_setting_allows_it(
    broken: bool, options: dict[str, Any], words: str, run_driven: Run, tmp_path: Path
) -> None:
    with pytest.raises(EngineFault, match=words):
        await run_driven(broken=broken, options=options, software_fallback=False)
    assert not (tmp_path / "out").exists()


async def test_a_bad_source_is_not_a_reason_to_try_another_encoder(
    run_driven: Run, clips: Clips, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.mp4"
    whole = clips.plain().read_bytes()
    cut.write_bytes(whole[: len(whole) * 3 // 5])
    with pytest.raises(InputFault):
        await run_driven(cut, broken=True)


async def test_where_only_another_ffmpeg_decodes_the_source_a_fallback_is_recorded_too(
    tools: Tools, capabilities: Capabilities, run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    driven = with_driver(tools, tmp_path, broken=False)
    rows = (VerifiedEncoder(NVENC, driven), *capabilities.encoders("h264"))
    apart = Capabilities({**capabilities.by_codec, "h264": rows}, capabilities.readers)
    report = await run_job(clips.plain(), tools=driven, capabilities=apart)
    assert report.result.notes[0] == "fallback-from-h264_nvenc"
    with pytest.raises(EngineFault):
        await run_job(clips.plain(), tools=driven, capabilities=apart, software_fallback=False)


async def test_a_streaming_upload_begins_again_with_the_software_encoder(
    run_driven: Run, clips: Clips, daemon: FakeDaemon
) -> None:
    url = serve(daemon, clips.plain())
    report = await run_driven(url, broken=True, **LARGE, server=daemon.url, place=None)
    assert report.result.encoder == "libx264"
    assert report.result.notes is not None
    assert "fallback-from-h264_nvenc" in report.result.notes
    assert "target-read-back" in (report.result.checks or [])
    assert len(daemon.media) == 1
