"""Small synthetic clips, each made once and kept for the session."""

import subprocess
from pathlib import Path

from distconv_engine.ffmpeg_tools import Tools

VIDEO = "testsrc2=s=160x90:r=25:d={d}"
AUDIO = "sine=d={d}"
H264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p"
AAC = "-c:a aac"

CONTAINERS = {
    "mp4-moov-last": f"{H264} {AAC} -f mp4",
    "mp4-moov-first": f"{H264} {AAC} -movflags +faststart -f mp4",
    "mp4-fragmented": f"{H264} -g 10 {AAC} -movflags frag_keyframe+empty_moov -f mp4",
    "mkv": f"{H264} {AAC} -f matroska",
    "webm": "-c:v libvpx-vp9 -cpu-used 8 -deadline realtime -b:v 300k -c:a libopus -f webm",
    "ts": f"{H264} {AAC} -f mpegts",
    "mov": f"{H264} -c:a pcm_s16le -f mov",
    "avi": "-c:v mpeg4 -b:v 400k -c:a libmp3lame -f avi",
    "flv": f"{H264} {AAC} -f flv",
}
"""How each container of the table is made."""


class Clips:
    def __init__(self, tools: Tools, folder: Path) -> None:
        self.tools = tools
        self.folder = folder

    def make(self, name: str, *arguments: str) -> Path:
        """Run ffmpeg with `arguments` and the output's path, unless it was made already."""
        path = self.folder / name
        if not path.exists():
            argv = [self.tools.ffmpeg, "-v", "error", "-y", "-nostdin", *arguments, str(path)]
            subprocess.run(argv, check=True, cwd=self.folder, capture_output=True)
        return path

    def container(self, kind: str, seconds: float = 2.0) -> Path:
        """A clip with picture and sound in a container of the table."""
        return self.make(
            f"{kind}-{seconds:g}.{kind.partition('-')[0]}",
            *("-f", "lavfi", "-i", VIDEO.format(d=seconds)),
            *("-f", "lavfi", "-i", AUDIO.format(d=seconds)),
            *CONTAINERS[kind].split(),
        )

    def plain(self) -> Path:
        """A short whole mp4."""
        return self.container("mp4-moov-first", 1.0)

    def long(self) -> Path:
        """A clip that takes some seconds to encode, for what has to be interrupted."""
        return self.make(
            "long.mp4",
            *("-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=60"),
            *H264.split(),
            *("-f", "mp4"),
        )
