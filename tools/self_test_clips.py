"""Make the clips with which an engine tests itself: one a kind of source, by recipe.

    .venv/bin/python -m tools.self_test_clips

They are committed, so an engine needs nothing to make them; a test makes them again and compares what is
in them. All are noise-free and tiny, since they are in the wheel: 200 kB at most.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from tools.zlib_matroska import compressed

from distconv_engine.ffmpeg.tools import find_tools
from distconv_engine.self_test.clips import CLIPS, FOLDER
from distconvd.model import Capability

BYTES_MAX = 200_000
_EXACT = "-fflags +bitexact -flags:v +bitexact -flags:a +bitexact -map_metadata -1 -threads 1"
_PICTURE = "-f lavfi -i testsrc2=s=96x64:r=25:d=0.48"
_SOUND = "-f lavfi -i sine=d=0.48:r=48000"
_H264 = f"-c:v libx264 -preset veryslow -crf 30 -pix_fmt yuv420p {_EXACT}"
_AAC = "-c:a aac -b:a 48k"
_HLG = "log-level=error:pools=none:frame-threads=1:colorprim=bt2020:transfer=arib-std-b67:colormatrix=bt2020nc"
RECIPES: dict[Capability, str] = {
    Capability.MP4_AAC: f"{_PICTURE} {_SOUND} {_H264} {_AAC} -movflags +faststart",
    Capability.VFR: (
        f"{_PICTURE} -vf settb=1/600,setpts='N*30+floor(N/5)*150+floor(mod(N*N*7,11))' "
        f"-fps_mode passthrough -enc_time_base 1/600 {_H264} -bf 0 -video_track_timescale 600"
    ),
    Capability.HDR_HEVC: (
        f"{_PICTURE} -pix_fmt yuv420p10le -c:v libx265 -crf 30 -x265-params {_HLG} -tag:v hvc1 {_EXACT}"
    ),
    Capability.PNG_COVER: (
        f"{_SOUND} -f lavfi -i testsrc2=s=32x32 -map 0 -map 1 {_AAC} {_EXACT} -frames:v 1 -c:v png "
        "-disposition:v:0 attached_pic"
    ),
    Capability.ZLIB_TRACKS: (
        f"{_PICTURE} {_SOUND} -i {{srt}} -map 0 -map 1 -map 2 {_H264} {_AAC} -c:s srt"
    ),
    Capability.OPEN_GOP_TS: (
        f"{_PICTURE} {_SOUND} {_H264} -x264-params open-gop=1:keyint=6:min-keyint=6:scenecut=0:bframes=2 "
        f"{_AAC}"
    ),
}
"""How ffmpeg makes each clip."""
_SRT = "1\n00:00:00,100 --> 00:00:00,300\nOne\n"


def make(folder: Path) -> None:
    """Make all clips in `folder`, with the bundled ffmpeg."""
    ffmpeg = find_tools(None).ffmpeg
    (folder / "lines.srt").write_text(_SRT)
    for capability, recipe in RECIPES.items():
        path = folder / CLIPS[capability].file
        words = recipe.replace("{srt}", str(folder / "lines.srt")).split()
        subprocess.run([ffmpeg, "-v", "error", "-nostdin", "-y", *words, str(path)], check=True)
        if capability is Capability.ZLIB_TRACKS:
            path.write_bytes(compressed(path.read_bytes(), {1, 2, 3}))
    (folder / "lines.srt").unlink()


def main() -> int:
    """Make the clips, and put them in their place if they are small enough."""
    with tempfile.TemporaryDirectory(prefix="distconv-clips-") as scratch:
        make(Path(scratch))
        made = {path.name: path.read_bytes() for path in sorted(Path(scratch).iterdir())}
    size = sum(map(len, made.values()))
    if size > BYTES_MAX:
        print(f"clips: {size} bytes are more than {BYTES_MAX}", file=sys.stderr)
        return 1
    FOLDER.mkdir(exist_ok=True)
    for name, content in made.items():
        (FOLDER / name).write_bytes(content)
        print(f"clips: {name}: {len(content)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
