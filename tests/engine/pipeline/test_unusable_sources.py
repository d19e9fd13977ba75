"""Check that what cannot be converted is named truly, and is the source's or the job's fault."""

from pathlib import Path

import pytest
from tests.engine.clips import Clips
from tests.engine.conftest import Run

from distconv_engine.failures import InputFault, Unusable

pytestmark = pytest.mark.e2e
FAST = {"preset": "ultrafast"}
_KEY = "76a6c65c5ea762046bd749a2e632ccbb"


@pytest.mark.parametrize("on_damage", ["refuse", "convert"])
async def test_an_encrypted_film_is_refused_by_the_name_of_its_scheme(
    on_damage: str, run_job: Run, clips: Clips
) -> None:
    path = clips.make(
        "encrypted.mp4",
        *("-i", str(clips.plain()), "-c", "copy", "-encryption_scheme", "cenc-aes-ctr"),
        *("-encryption_key", _KEY, "-encryption_kid", _KEY),
    )
    with pytest.raises(Unusable, match=r"it is encrypted \(cenc\)"):
        await run_job(path, "h264", options={**FAST, "on_damage": on_damage})


async def test_an_unknown_codec_is_named_by_its_four_letters(
    run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    content = clips.plain().read_bytes()
    path.write_bytes(content.replace(b"avc1\0\0", b"zzzz\0\0").replace(b"avcC", b"avcX"))
    with pytest.raises(Unusable, match=r"codec 'zzzz' of video #0"):
        await run_job(path, "h264", options=FAST)


async def test_a_second_picture_track_is_named_with_the_way_out(run_job: Run, clips: Clips) -> None:
    plain = str(clips.plain())
    path = clips.make(
        "two.mp4", "-i", plain, "-i", plain, *("-map", "0", "-map", "1:v", "-c", "copy")
    )
    with pytest.raises(InputFault, match=r"has 2 video streams.*'drop' to leave out video #2"):
        await run_job(path, "h264", options=FAST)
    report = await run_job(path, "h264", options={**FAST, "on_unsupported": "drop"})
    assert report.result.dropped == ["video #2 (h264)"]


@pytest.mark.parametrize("size,side", [("17000x32", "width"), ("16x17000", "height")])
async def test_a_picture_beyond_the_encoder_is_refused_with_the_number_and_the_option(
    size: str, side: str, run_job: Run, clips: Clips
) -> None:
    path = clips.make(
        f"large-{side}.mkv", "-f", "lavfi", "-i", f"testsrc2=s={size}:r=25:d=0.08", "-c:v", "ffv1"
    )
    with pytest.raises(InputFault, match=f"{size} pixels.*set options.max_{side} to 16384 or less"):
        await run_job(path, "h264", options=FAST)
    report = await run_job(path, "h264", options={**FAST, f"max_{side}": 16_384})
    assert max(report.result.width, report.result.height) == 16_384
